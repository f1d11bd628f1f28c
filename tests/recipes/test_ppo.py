"""The script as a user runs it: PPO in two processes, RLOO with a reference, and its error messages."""

import json

import pytest

from autorater import Judge
from autorater.data.population import simulate_pairs
from autorater.training.value_head import VALUE_HEAD_FILE
from tests.recipes.forked import run_forked
from tests.recipes.test_grpo import TINY, error_of

TINY_PPO = [*TINY, "--steps_per_generation=1", "--report_to=none", "--use_cpu"]


def check_files(folder):
    metrics = json.loads((folder / "metrics.json").read_text())
    assert isinstance(metrics["before/excess_brier"], float)
    assert isinstance(metrics["after/excess_brier"], float)
    names = {"report.html", "reliability.png", "model.safetensors", "README.md", "predictions.jsonl"}
    assert names <= {f.name for f in folder.iterdir()}
    judgments = Judge.from_pretrained(str(folder)).probabilities(simulate_pairs(2, seed=9).pairs)
    assert ((judgments.p_sym >= 0) & (judgments.p_sym <= 1)).all()


def test_two_processes_save_the_judge_and_its_value_head(tmp_path):
    """DDP detects the parameters of the head in the output of the module."""
    done = run_forked(
        "ppo", *TINY_PPO, f"--output_dir={tmp_path}", "--value_learning_rate=0.01", "--log_completions",
        "--num_completions_to_print=1", processes=2,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "2 processes" in done.stdout
    assert done.stdout.count("Excess Brier score") == 2, "one table, of one process"
    check_files(tmp_path)
    assert (tmp_path / VALUE_HEAD_FILE).exists()


def test_rloo_with_a_reference(tmp_path):
    done = run_forked("ppo", *TINY_PPO, f"--output_dir={tmp_path}", "--algorithm=rloo", "--beta=0.1", "--kl_in=loss")
    assert done.returncode == 0, done.stderr
    check_files(tmp_path)
    assert not (tmp_path / VALUE_HEAD_FILE).exists()


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--answers=exact", "answers: exact is not compatible with ppo"),
        ("--algorithm=grpo", "invalid choice: 'grpo'"),
    ],
)
def test_user_errors(tmp_path, monkeypatch, argument, message):
    assert message in error_of("ppo", [f"--output_dir={tmp_path}", argument], monkeypatch)
