"""The script as a user runs it, on a small judge: files, table, and user errors in one line."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from autorater.cli import command
from autorater.data.loading import write_pairs
from autorater.data.population import simulate_pairs
from autorater.judges import Judge
from autorater.prompts.templates import PromptFormat
from tests.conftest import make_model, make_tokenizer
from tests.recipes.forked import run_forked

ROOT = Path(__file__).parents[2]


def run(*arguments):
    return run_forked("evaluate", "--device=cpu", *arguments)


@pytest.fixture(scope="module")
def judge_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("judge")
    tokenizer = make_tokenizer("split")
    judge = Judge(make_model("qwen", len(tokenizer)), tokenizer, PromptFormat("compact"), answer_step=0.25)
    judge.model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    judge.save_format(folder)
    return folder


def test_simulated_pairs_and_a_saved_recalibration(judge_dir, tmp_path):
    done = run(
        "--judge", judge_dir, "--output_dir", tmp_path, "--n_pairs=24", "--n_votes=3", "--n_bootstrap=20",
        "--save_recalibration=odd_temperature", "--methods=all",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "reasoning requires a template without it at the end" in done.stdout, done.stdout[-3000:]
    assert "split by topic" in done.stdout
    assert "saved with" in done.stdout
    assert "Traceback" not in done.stderr
    files = {"metrics.json", "predictions.jsonl", "report.html", "reliability.png"}
    assert files | {"judgments"} == {path.name for path in tmp_path.iterdir()}
    assert "answer_mean (6 of 8 methods)" in done.stdout
    assert re.search(r"48 prompts, [\d,]+ tokens; under a minute for", done.stdout)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    for method in ("verbalized", "self_consistency", "letter_logits", "answer_mean"):
        for variant in ("", "+temperature", "+isotonic", "+contextual", "+batch", "+swap", "+swap+odd_temperature"):
            assert 0 <= metrics[f"{method}{variant}/brier"] <= 1
    slope = metrics["answer_mean+odd_temperature/fitted_slope"]
    assert Judge.from_pretrained(str(judge_dir), device="cpu").recalibration.slope == pytest.approx(slope)
    rows = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    held_out = {pair.id for pair in simulate_pairs(24, n_votes=3, seed=0, held_out=True).pairs}
    assert {row["id"] for row in rows} < held_out


def test_two_judges_on_own_votes_with_chosen_methods(judge_dir, tmp_path):
    data = tmp_path / "votes.jsonl"
    write_pairs(simulate_pairs(20, n_votes=3, seed=0).pairs, data)
    other = tmp_path / "other"
    other.symlink_to(judge_dir)
    done = run(
        "--judge", judge_dir, other, "--output_dir", tmp_path / "out", "--dataset_name", data, "--n_bootstrap=20",
        "--methods", "answer_mean", "--variants", "none", "swap", "--split_by=prompt",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert {key.rsplit("/", 1)[0] for key in metrics} >= {"other/answer_mean", "other/answer_mean+swap"}


def test_without_the_default_judge(tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "recipes" / "evaluate.py", "--n_pairs=9"],
        cwd=tmp_path, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    message = "error: runs/grpo_simulated: no such folder; run make train, or name --judge\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--judge", "/nowhere/at/all"], "no such folder or file"),
        (["--judge", "DIR", "--methods", "magic", "--n_pairs=10"], "unknown judging method 'magic'"),
        (["--judge", "DIR", "--dataset_name", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--judge", "DIR", "--dataset_name", "votes.jsonl", "--split_by=group"], "jsonl: pair '0' has no group"),
    ],
)
def test_mistakes(judge_dir, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    Path("votes.jsonl").write_text('{"prompt": "Tea?", "response_a": "Yes.", "response_b": "No.", "label": 1}\n')
    arguments = [str(judge_dir) if argument == "DIR" else argument for argument in arguments]
    with pytest.raises(SystemExit, match="2"):
        command(["evaluate", "--device=cpu", f"--output_dir={tmp_path}", *arguments])
    assert message in capsys.readouterr().err
