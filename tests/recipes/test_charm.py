"""recipes/charm.py as a user executes it."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from autorater.charm.arena import Arena
from autorater.data.loading import write_pairs
from tests.conftest import full_disk
from tests.recipes.forked import run_forked
from tests.recipes.test_grpo import error_of
from tests.recipes.test_sharded import launcher_of

ROOT = Path(__file__).parents[2]
TINY = [
    "--n_pairs=64", "--n_prompts=12", "--n_test_prompts=6", "--n_test_pairs=20", "--base_hidden_size=32",
    "--base_epochs=1", "--base_num_layers=1", "--max_steps=2", "--use_cpu",
]  # fmt: skip


def run(*arguments):
    return run_forked("charm", *arguments)


def test_simulated_arena_from_beginning_to_end_and_once_more(tmp_path):
    done = run(*TINY, f"--output_dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    for version in ("original", "uncalibrated", "calibrated"):
        for key in ("mismatch", "accuracy", "spearman", "pearson", "mismatch/velvet-large", "win_rate/aspen/birch"):
            assert isinstance(metrics[f"{version}/{key}"], float)
    left = {path.name for path in tmp_path.iterdir()}
    assert {"report.html", "report.md", "scores", "preferences_calibrated.jsonl", "calibrated"} <= left
    assert (tmp_path / "calibrated" / "model.safetensors").exists()
    rows = [json.loads(line) for line in (tmp_path / "preferences_calibrated.jsonl").read_text().splitlines()]
    assert set(rows[0]) == {"prompt", "chosen", "rejected", "chosen_model", "rejected_model"}

    again = run(*TINY, f"--output_dir={tmp_path}", "--stage=evaluate")
    assert again.returncode == 0, again.stderr
    assert "original: using the reward model in" in again.stdout
    assert "calibrated: using the reward model in" in again.stdout
    assert json.loads((tmp_path / "metrics.json").read_text()) == pytest.approx(metrics)


@pytest.mark.slow
def test_three_trainings_of_one_run_under_deepspeed(tmp_path):
    """ZeRO-2 from scratch; then ZeRO-3 from its model, whose scores are those of one process."""
    launcher = [sys.executable, *launcher_of("zero2_cpu.yaml"), "recipes/charm.py", *TINY]
    options = {"cwd": ROOT, "capture_output": True, "text": True, "timeout": 600, "check": False}
    options["env"] = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([*launcher, f"--output_dir={tmp_path / 'two'}"], **options)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    launcher = [sys.executable, *launcher_of("zero3_cpu.yaml"), "recipes/charm.py", *TINY]
    refused = subprocess.run([*launcher, f"--output_dir={tmp_path / 'scratch'}"], **options)
    assert refused.returncode != 0
    assert "ZeRO-3 shards a model that is built from scratch" in refused.stdout + refused.stderr
    launcher = [option for option in launcher if not option.startswith("--base_")]
    base = f"--model_name_or_path={tmp_path / 'two' / 'original'}"
    done = subprocess.run([*launcher, base, f"--output_dir={tmp_path / 'three'}"], **options)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    plain = run(
        *(option for option in TINY if not option.startswith("--base_")), base, f"--output_dir={tmp_path / 'one'}"
    )
    assert plain.returncode == 0, plain.stderr
    one, three = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("one", "three"))
    assert three["original/pearson"] == pytest.approx(one["original/pearson"], abs=1e-6)


def test_own_responses_with_scores_and_a_table_need_no_reward_model(tmp_path, monkeypatch):
    rows = [
        {"prompt": f"q{i}", "model": m, "response": f"{m} {i}", "score": s + (i % 3) / 2}
        for i in range(10) for m, s in (("ada", 0.0), ("bob", 2.0), ("cyd", 0.1))
    ]  # fmt: skip
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "elo.csv").write_text("Model,Arena Score\nada,1000\nbob,1000\ncyd,1010\n")
    given = ["--config", str(tmp_path / "c.yaml"), f"--responses_name={tmp_path / 'r.jsonl'}"]
    (tmp_path / "c.yaml").write_text(
        f"output_dir: {tmp_path / 'out'}\nstage: diagnose\nreport_to: none\nuse_cpu: true\n"
    )
    done = run(*given, f"--elo_table={tmp_path / 'elo.csv'}")
    assert done.returncode == 0, done.stderr
    assert "bob against ada on 7 prompts: win rate 0.881, by Elo 0.500; the offset -2.000" in done.stdout
    assert (tmp_path / "out" / "report.html").exists()

    (tmp_path / "out" / "metrics.json").unlink()
    monkeypatch.setattr("autorater.charm.run.write_charm_report", full_disk)
    monkeypatch.setattr(sys, "argv", ["charm.py", *given, f"--elo_table={tmp_path / 'elo.csv'}"])
    with pytest.raises(OSError, match="No space"):
        runpy.run_path(str(ROOT / "recipes" / "charm.py"))["main"]()
    assert not (tmp_path / "out" / "metrics.json").exists(), "it is written last, when the run is finished"

    (tmp_path / "short.csv").write_text("model,elo\nada,1000\nbob,1000\n")
    error = error_of("charm", [*given, f"--elo_table={tmp_path / 'short.csv'}"], monkeypatch)
    assert "no Elo for 'cyd'; there is one for ada, bob" in error


def test_votes_give_elo_and_a_lora_adapter_is_trained(tmp_path):
    write_pairs(Arena().pairs(150, n_votes=3, seed=0), tmp_path / "votes.jsonl")
    done = run(
        *TINY[4:], "--config", str(ROOT / "recipes/configs/charm_pandalm.yaml"), f"--output_dir={tmp_path / 'out'}",
        f"--dataset_name={tmp_path / 'votes.jsonl'}", "--base_epochs=1", "--overvalued=velvet-large",
        "--reference=elm", "--use_peft", "--lora_task_type=SEQ_CLS", "--lora_target_modules", "q_proj", "v_proj",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "calibrated" / "adapter_model.safetensors").exists()
    assert "velvet-large against elm" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset_name=nowhere.jsonl"], "nowhere.jsonl: no such file"),
        (["--overvalued=nobody", *TINY], "no Elo for 'nobody'"),
        (["--dataset_name=votes.jsonl", "--n_pairs=5"], "n_pairs: no effect, because the data is read"),
        (["--model_name_or_path=org/m", "--base_epochs=1"], "base_epochs: no effect, because the reward model is"),
        (["--resume_from_checkpoint=auto", *TINY], "keeps its scores: start the same command without it"),
    ],
)
def test_mistakes(tmp_path, monkeypatch, arguments, message):
    assert message in error_of("charm", [f"--output_dir={tmp_path}", *arguments], monkeypatch)
