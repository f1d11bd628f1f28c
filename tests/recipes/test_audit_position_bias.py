"""The audit script: its output files, its help, errors of the user, and that it requires no torch."""

import gzip
import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from autorater.cli import run_script
from recipes.audit_position_bias import main
from tests.audit.conftest import ENV, ROOT, audit, lines, make_pairs_file, serve  # noqa: F401  (fixtures)
from tests.conftest import DATA, needs_data

LLMBAR = DATA / "llmbar_judges.jsonl.gz"
HEADLINE = ("consistency", "flip_rate", "first_slot_share", "symmetry_deviation_mean", "symmetry_deviation_abs")
BLOCKED = """
import runpy, sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "transformers", "trl", "datasets", "sklearn"}:
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Blocker())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@needs_data("llmbar_judges")
def test_recorded_verdicts_are_counted_exactly(audit, tmp_path):  # noqa: F811
    done = audit("--judge", f"recorded:{LLMBAR}", "--group_by", "judge,prompting", "--output_dir", tmp_path)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    groups = defaultdict(list)
    with gzip.open(LLMBAR, "rt") as file:
        for row in map(json.loads, file):
            groups[f"{row['judge']}/{row['prompting']}"].append((row["winner_original"], row["winner_swapped"]))
    assert len(groups) == 8
    for name, winners in groups.items():
        both = [pair for pair in winners if None not in pair]
        first = sum(a == "1" for a, _ in both) + sum(b == "2" for _, b in both)
        assert metrics[f"{name}/n_pairs"] == len(both)
        assert metrics[f"{name}/n_unparsed"] == len(winners) - len(both)
        assert abs(metrics[f"{name}/consistency"] - sum(a == b for a, b in both) / len(both)) < 1e-12
        assert abs(metrics[f"{name}/first_slot_share"] - first / (2 * len(both))) < 1e-12
        assert (
            metrics[f"{name}/consistency_low"] < metrics[f"{name}/consistency"] < metrics[f"{name}/consistency_high"]
        )
        assert (metrics[f"{name}/p_value_verdicts"] < 0.05) == (not name.startswith("GPT-4/"))
    assert metrics["ChatGPT/Vanilla/consistency"] == pytest.approx(0.5858, abs=5e-5)
    assert metrics["n_pairs"] + metrics["n_unparsed"] == 5872
    (row,) = (line.split() for line in done.stdout.splitlines() if line.startswith("GPT-4/CoT "))
    assert row == ["GPT-4/CoT", "732", "2", "0.847", "0.493", "+0.014", "0.395", "no", "side", "favoured"]
    assert done.stdout.count("favours the response shown first") == 7


def record(path: Path, *rows: dict) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"recorded:{path}"


def test_output_files(audit, tmp_path):  # noqa: F811
    spec = record(
        tmp_path / "verdicts.jsonl",
        {"id": "x", "p_ab": 0.9, "p_ba": 0.7, "label": 1, "prompt": "Why?", "response_a": "a", "response_b": "b"},
        *({"p_ab": 0.2, "p_ba": 0.8, "label": 0}, {"p_ab": 0.6, "p_ba": None, "label": 0}) * 3,
    )
    done = audit("--judge", spec, "--output_dir", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    for key in HEADLINE:
        assert metrics[f"{key}_low"] <= metrics[key] <= metrics[f"{key}_high"], key
    assert (metrics["n_pairs"], metrics["n_unparsed"]) == (4, 3)
    assert metrics["consistency"] == 0.75
    (flip,) = lines(tmp_path / "out" / "flips.jsonl")
    assert (flip["id"], flip["symmetry_deviation"], flip["response_b"]) == ("x", 0.6, "b")
    assert (tmp_path / "out" / "report.html").exists()


def test_one_process_audits(tmp_path, monkeypatch, capsys):
    spec = record(tmp_path / "verdicts.jsonl", {"p_ab": 0.9, "p_ba": 0.7})
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "2")):  # without the refusal nothing is printed, with status 0
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["audit", "--judge", spec, "--output_dir", str(tmp_path / "out")])
    with pytest.raises(SystemExit):
        run_script(main)
    assert "runs in one process, and was started in 2" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_fail_above(audit, tmp_path):  # noqa: F811
    spec = record(tmp_path / "verdicts.jsonl", *({"verdict_ab": "A", "verdict_ba": v} for v in "AAAB"))
    command = ("--judge", spec, "--output_dir", tmp_path / "out")
    assert audit(*command, "--fail-above", 0.25).returncode == 0
    failed = audit(*command, "--fail-above", 0.24)
    assert failed.returncode == 3
    assert "flip_rate 0.2500 is above 0.24" in failed.stderr


@pytest.mark.parametrize("kind", ["recorded", "endpoint"])
def test_no_torch_is_required(kind, serve, make_pairs_file, tmp_path):  # noqa: F811
    if kind == "endpoint":
        judge = ("--judge", "endpoint:m", "--base_url", serve().base_url, "--dataset_name", make_pairs_file(3))
    else:
        judge = ("--judge", record(tmp_path / "verdicts.jsonl", {"p_ab": 0.9, "p_ba": 0.2}))
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED, "recipes/audit_position_bias.py", *judge, "--output_dir", str(tmp_path / "o")],
        cwd=ROOT, env=ENV, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_help_is_a_page(audit):  # noqa: F811
    done = audit("--help")
    assert done.returncode == 0
    for words in (
        "endpoint:MODEL",
        "recorded:FILE",
        "verdict_ab, verdict_ba",
        "exit status",
        "resuming",
        "--price_in",
    ):
        assert words in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 120


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--judge"),
        (("--judge", "endpoint:m"), "--dataset_name is missing"),
        (("--judge", "endpoint:", "--dataset_name", "x.jsonl"), "expected a model after the colon"),
        (("--judge", "recorded:"), "expected a file after the colon"),
        (("--judge", "endpoint:m", "--dataset_name", "nowhere.jsonl"), "nowhere.jsonl: no such file"),
        (("--judge", "nowhere/at/all", "--dataset_name", "{pairs}"), "no such folder or file"),
        (("--judge", "recorded:nowhere.jsonl"), "no such file"),
        (("--judge", "recorded:{bad}"), "line 2: column 'p_ab': got 1.5; expected a number in [0, 1], or null"),
        (("--judge", "recorded:{pairs}"), "expected the columns probability or p_ab, p_ba or verdict_ab, verdict_ba"),
        (("--judge", "recorded:{half}"), "1 of 2 pairs have a row in one order only, first 'y'; expected a row with"),
        (("--judge", "recorded:{bad}", "--repeats", "2"), "repeats: no effect, because a recorded file already holds"),
        (("--judge", "recorded:{bad}", "--reasoning"), "reasoning: no effect, because a recorded file"),
        (("--judge", "recorded:{bad}", "--temperature", "0"), "temperature: no effect, because a recorded file"),
        (
            ("--judge", "m", "--dataset_name", "{pairs}", "--concurrency", "8"),
            "concurrency: no effect, because a local judge sends no requests",
        ),
        (("--judge", "m", "--dataset_name", "{pairs}", "--price_in", "1"), "price_in: no effect"),
        (("--judge", "m", "--dataset_name", "{pairs}", "--max_requests", "9"), "max_requests: no effect"),
        (("--judge", "m", "--dataset_name", "{pairs}", "--extra_body", "{{}}"), "extra_body: no effect"),
        (("--judge", "endpoint:m", "--extra_body", "[]"), "'[]': expected a JSON object"),
        (("--judge", "endpoint:m", "--timeout", "inf"), "'inf': expected a number, 0.001 or more"),
        (("--judge", "endpoint:m", "--max_pairs", "1.5"), "'1.5': expected a whole number, 1 or more"),
        (("--judge", "recorded:{bad}", "--fail-above", "2"), "expected a number from 0 to 1"),
        (("--judge", "m", "--dataset_name", "{pairs}", "--probe", "labels"), "--probe labels is for endpoints"),
        (("--judge", "recorded:{good}", "--self", "gpt"), "--self gpt: no pair compares one of these with another"),
        (("--judge", "m", "--dataset_name", "{pairs}", "--probe", "swop"), "expected names out of swap, verbosity"),
        (("--judge", "m", "--dataset_name", "{pairs}", "--base_url", "http://x"), "base_url: no effect"),
        (("--judge", "endpoint:m", "--dataset_name", "{pairs}"), "no key in OPENAI_API_KEY; set it, or"),
        (("--judge", "endpoint:m", "--dataset_name", "{pairs}", "--read", "exact"), "--read requires --judge_format"),
        (
            ("--judge", "endpoint:m", "--dataset_name", "{pairs}", "--judge_format", "d", "--criteria", "x"),
            "--criteria has no effect with --judge_format",
        ),
        (
            ("--judge", "endpoint:m", "--dataset_name", "{pairs}", "--judge_format", "d", "--temperature", "1"),
            "require --read sampled",
        ),
        (("--judge", "endpoint:m", "--dataset_name", "{pairs}", "--judge_format", "nowhere"), "no autorater.json"),
        (("--judge", "endpoint:m", "--header", "nonsense"), "expected a name, a colon and a value"),
        (("--judge", "m", "--colour", "red"), "unrecognized arguments: --colour red"),
    ],
)
def test_errors_of_the_user_are_one_line(make_pairs_file, tmp_path, arguments, message, monkeypatch, capsys):  # noqa: F811
    bad = tmp_path / "bad.jsonl"
    record(bad, {"p_ab": 0.5, "p_ba": 0.5}, {"p_ab": 1.5, "p_ba": 0.5})
    record(tmp_path / "good.jsonl", {"p_ab": 0.5, "p_ba": 0.5, "model_a": "a", "model_b": "b"})
    half = [{"id": id, "order": order, "probability": 0.5} for id, order in (("x", "ab"), ("x", "ba"), ("y", "ba"))]
    record(tmp_path / "half.jsonl", *half)
    files = {"bad": bad, "half": tmp_path / "half.jsonl", "good": tmp_path / "good.jsonl", "pairs": make_pairs_file(2)}
    arguments = [argument.format(**files) for argument in arguments]
    monkeypatch.setattr(sys, "argv", ["audit_position_bias.py", *arguments, "--output_dir", str(tmp_path / "out")])
    monkeypatch.setenv("OPENAI_API_KEY", "")
    with pytest.raises(SystemExit) as exit:
        run_script(main)
    assert exit.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message.format(bad=bad) in error
    assert error.count("\n") == 1
