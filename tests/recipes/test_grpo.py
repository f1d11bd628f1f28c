"""The script as a user runs it: the files that it writes, and its error messages."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from autorater import Judge
from autorater.data.errors import UserError
from autorater.data.loading import write_pairs
from autorater.data.population import simulate_pairs
from tests.recipes.forked import run_forked

ROOT = Path(__file__).parents[2]
TINY = [
    "--n_train=80", "--n_test=12", "--warm_start_steps=2", "--warm_start_batch_size=4", "--max_steps=2",
    "--per_device_train_batch_size=4", "--policy_hidden_size=32", "--policy_num_layers=1", "--eval_steps=1",
]  # fmt: skip
SMALL = [
    "--n_train=3200", "--n_test=100", "--warm_start_steps=400", "--max_steps=40", "--eval_steps=40",
    "--per_device_train_batch_size=8", "--policy_hidden_size=64", "--policy_num_layers=2",
]  # fmt: skip


def run(*arguments):
    return run_forked("grpo", *arguments)


@pytest.fixture(scope="module")
def default_run(tmp_path_factory):
    """The default config with fewer steps and a smaller policy: the folder and the finished process."""
    folder = tmp_path_factory.mktemp("default_run")
    done = subprocess.run(
        [
            sys.executable, "recipes/grpo.py", *SMALL, f"--output_dir={folder}", "--log_completions",
            "--num_completions_to_print=1",
        ],
        cwd=ROOT, capture_output=True, text=True, timeout=900, env=os.environ, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder, done


def test_default_run_learns(default_run):
    """After training the judge is better on held-out pairs: the confidence intervals do not overlap."""
    metrics = json.loads((default_run[0] / "metrics.json").read_text())
    assert metrics["after/excess_brier_high"] < metrics["before/excess_brier_low"]
    assert metrics["after/symmetry_deviation_abs_high"] < metrics["before/symmetry_deviation_abs_low"]


def test_default_run_writes_all_files(default_run):
    folder, done = default_run
    assert "W&B: no login, recording offline" in done.stdout
    assert "Excess Brier" in done.stdout
    assert "Traceback" not in done.stderr
    metrics = json.loads((folder / "metrics.json").read_text())
    for key in (
        "brier", "log_loss", "ece", "mse_dense", "excess_brier", "consistency", "symmetry_deviation_abs", "parse_rate",
        "distinct_answers", "brier_low", "brier_high", "n_pairs",
    ):  # fmt: skip
        assert isinstance(metrics[f"before/{key}"], float), key
        assert isinstance(metrics[f"after/{key}"], float), key
    assert len((folder / "predictions.jsonl").read_text().splitlines()) == 200
    assert {"report.html", "reliability.png", "model.safetensors", "README.md"} <= {f.name for f in folder.iterdir()}
    judgments = Judge.from_pretrained(str(folder)).probabilities(simulate_pairs(2, seed=9).pairs)
    assert ((judgments.p_sym >= 0) & (judgments.p_sym <= 1)).all()
    assert list((folder / "completions").glob("*.parquet"))


def test_two_processes_are_one_run(tmp_path):
    """With torchrun, as users do: every process judges its share; the predictions are those of one process."""
    done = subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2",
            "recipes/grpo.py", *TINY, "--n_test=13", f"--output_dir={tmp_path}", "--report_to=none", "--use_cpu",
        ],
        cwd=ROOT, capture_output=True, text=True, timeout=900, env=os.environ, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "2 processes" in done.stdout
    assert done.stdout.count("Excess Brier score") == 2, "one table, of one process"
    rows = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    held_out = simulate_pairs(13, n_votes=10, seed=0, held_out=True).pairs
    judgments = Judge.from_pretrained(str(tmp_path)).probabilities(held_out)
    assert [(row["id"], row["order"]) for row in rows] == [(p.id, order) for p in held_out for order in ("ab", "ba")]
    assert [row["probability"] for row in rows] == pytest.approx(judgments.mean.flatten().tolist(), abs=1e-5)


def test_own_votes_and_lora_on_a_saved_policy(tmp_path):
    data = tmp_path / "votes.jsonl.gz"
    write_pairs(simulate_pairs(60, n_votes=3, seed=0).pairs, data)
    first = run(
        *TINY, f"--dataset_name={data}", "--split_by=topic", f"--output_dir={tmp_path / 'a'}", "--report_to=none"
    )
    assert first.returncode == 0, first.stderr
    card = (tmp_path / "a" / "README.md").read_text()
    assert "Trained from a small policy from scratch to read" in card
    assert "| save\\_strategy | no |" in card
    assert "n\\_train" not in card
    config = tmp_path / "lora.yaml"
    config.write_text(
        "answers: sampled\nnum_generations: 4\nper_device_train_batch_size: 8\nmax_steps: 1\nbeta: 0.01\n"
        "use_peft: true\nlora_target_modules: [q_proj, v_proj]\nprompt_template: compact\nanswer_step: 0.05\n"
        "report_to: none\n"
    )
    second = run(
        "--config", str(config), f"--dataset_name={data}", "--split_by=topic", f"--output_dir={tmp_path / 'b'}",
        f"--model_name_or_path={tmp_path / 'a'}",
    )  # fmt: skip
    assert second.returncode == 0, second.stderr
    assert (tmp_path / "b" / "adapter_model.safetensors").exists()
    assert Judge.from_pretrained(str(tmp_path / "b")).encoder.format.template == "compact"


def test_train_only_selects_the_parameters_to_train(tmp_path):
    done = run(*TINY, "--train_only", "embed_tokens", f"--output_dir={tmp_path}", "--report_to=none")
    assert done.returncode == 0, done.stderr
    before, after = (load_file(folder / "model.safetensors") for folder in (tmp_path / "warm_start", tmp_path))
    moved = {name for name, values in after.items() if not torch.equal(values, before[name])}
    assert moved == {"model.embed_tokens.weight"}


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (lambda d: ["--config", write(d / "c.yaml", "learnign_rate: 1\n")], "learnign_rate"),
        (lambda d: ["--config", str(d / "missing.yaml")], "missing.yaml"),
        (lambda d: ["--config", write(d / "c.yaml", "a: [\n")], "c.yaml"),
        (lambda d: ["--config", write(d / "c.yaml", "labels: thin\n")], "labels: got 'thin'; expected one of"),
        (lambda d: ["--model_name_or_path", str(d / "nowhere")], "no such folder or file"),
        (lambda d: ["--train_only", "norm", "--use_peft"], "for an adapter set lora_target_modules"),
        (lambda d: ["--dataset_name", str(d / "nowhere.jsonl")], "nowhere.jsonl"),
        (lambda d: ["--dataset_name", write(d / "x.jsonl", '{"prompt": "a"}\n')], "x.jsonl"),
        (lambda d: ["--temperature", "0.7"], "temperature: 0.7 is not compatible with exact answers"),
        (lambda d: ["--output_dir", write(d / "file", "") + "/run"], "cannot be written"),
    ],
)
def test_user_errors(tmp_path, monkeypatch, arguments, message):
    assert message in error_of("grpo", ["--output_dir", str(tmp_path / "out"), *arguments(tmp_path)], monkeypatch)


def error_of(recipe: str, arguments: list[str], monkeypatch) -> str:
    """The message of the `UserError` that the recipe raises in this process."""
    monkeypatch.setattr(sys, "argv", [f"recipes/{recipe}.py", *arguments])
    main = runpy.run_path(str(ROOT / "recipes" / f"{recipe}.py"))["main"]
    with pytest.raises(UserError) as raised:
        main()
    return str(raised.value)


def test_a_user_error_is_one_line_with_status_2(tmp_path):
    done = run("--output_dir", str(tmp_path / "out"), "--dataset_name", str(tmp_path / "nowhere.jsonl"))
    assert done.returncode == 2, done.stderr
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "nowhere.jsonl" in error
    assert "Traceback" not in done.stderr
