"""The study as a person runs it: every kind of run, continued, and run again where its settings have changed."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from autorater.data.loading import write_pairs
from autorater.data.population import simulate_pairs
from benchmarks.study.figures import FIGURES
from tests.recipes.forked import run_forked

ROOT = Path(__file__).parents[2]
EXACT = {"answers": "exact", "orders": "coupled", "per_device_train_batch_size": 2}
SAMPLED = {"answers": "sampled", "orders": "separate", "num_generations": 2, "per_device_train_batch_size": 4}


def study(config):
    return run_forked("tests/recipes/forking_study.py", "--config", config)


def document(folder):
    """Simulated and recorded votes, two seeds, every trainer."""
    methods = {
        "usual": ("grpo", ["simulated"], SAMPLED | {"scale_rewards": "group"}),
        "ours": ("grpo", ["simulated", "recorded"], EXACT | {"symmetry_coef": 1.0}),
        "ppo": ("ppo", ["simulated"], {"num_generations": 1, "orders": "coupled", "per_device_train_batch_size": 4}),
        "one order": ("grpo", ["simulated"], EXACT | {"orders": "separate", "both_orders": False}),
        "dense": ("grpo", ["simulated"], EXACT | {"labels": "dense", "n_train": 12, "n_votes": 3}),
        "letters": ("alignment", ["simulated", "recorded"], {"ablate": ["kl"], "per_device_train_batch_size": 4}),
        "text sft": ("sft", ["simulated"], {"objective": "text", "per_device_train_batch_size": 4}),
        "words": ("text", ["simulated", "recorded"], {}),
    }
    trained = ["usual", "ours"]
    return {
        "output_dir": str(folder / "study"),
        "seeds": [0, 1],
        "processes": 1,
        "common": {
            "prompt_template": "compact", "answer_step": 0.25, "n_train": 24, "n_test": 12, "n_test_votes": 3,
            "n_calibration": 10, "n_bootstrap": 10, "policy_hidden_size": 16, "policy_num_layers": 1,
            "warm_start_steps": 2, "warm_start_batch_size": 4,
        },
        "training": {"max_steps": 2, "curve_steps": 1, "n_curve_pairs": 6},
        "datasets": {
            "simulated": {
                "title": "Simulated",
                "tests": {"shifted": {"population_noise": 2.0}, "objective": {"n_pairs": 5}},
            },
            "recorded": {
                "title": "Recorded",
                "seeds": [0],
                "settings": {
                    "dataset_name": str(folder / "train.jsonl"),
                    "eval_dataset_name": str(folder / "test.jsonl"),
                    "calibration_dataset_name": str(folder / "test.jsonl"),
                },
            },
        },
        "methods": {n: {"title": n, "trainer": t, "datasets": g, "settings": s} for n, (t, g, s) in methods.items()},
        "figures": {
            "dataset": "simulated", "ours": "ours", "usual": "usual",
            "overconfidence": trained, "learning_curve": trained,
            "votes": ["ours", "dense"], "orders": ["one order", "ours"], "objective": ["warm start", "ours"],
            "cost": trained,
        },
    }  # fmt: skip


def write(folder, spec):
    (folder / "study.yaml").write_text(yaml.safe_dump(spec, sort_keys=False))
    return folder / "study.yaml"


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    for name, held_out in (("train", False), ("test", True)):
        pairs = simulate_pairs(20, n_votes=3, seed=1, held_out=held_out).pairs
        write_pairs([replace(pair, true_probability=None) for pair in pairs], folder / f"{name}.jsonl")
    return document(folder)


@pytest.fixture(scope="module")
def finished(spec):
    folder = Path(spec["output_dir"])
    done = study(write(folder.parent, spec))
    assert done.returncode == 0, done.stderr
    return folder, done


def runs(folder):
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.glob("runs/*/*/*.json")}


def test_it_leaves_everything_behind(finished):
    folder, done = finished
    assert "22 runs, 0 of them recorded" in done.stdout
    assert "Traceback" not in done.stderr
    assert len(runs(folder)) == 22
    numbers = json.loads((folder / "study.json").read_text())
    assert numbers["clock"]["runs_executed"] == 22
    tests = numbers["datasets"]["simulated"]["ours"]["predictions"]["answer_mean"]
    assert set(tests) == {"test", "shifted", "objective"}
    assert len(tests["test"]["excess_brier"]["seeds"]) == 2
    assert tests["test"]["excess_brier"] != tests["shifted"]["excess_brier"], "p* has changed"
    assert numbers["datasets"]["simulated"]["ours"]["training_tokens"]["value"] > 0
    assert {"constant", "length", "tfidf"} == set(numbers["datasets"]["recorded"]["words"]["predictions"])
    text = (folder / "study.md").read_text()
    assert "verbalized with reasoning | not available: prompt template compact ends with" in text
    assert "Recorded votes: Recorded" in text
    assert "| ours, temperature on the symmetrized logit | " in text
    assert {path.stem for path in (folder / "figures").iterdir()} == set(FIGURES)


def test_it_goes_on_and_runs_what_changed(finished, spec):
    folder, _ = finished
    before = runs(folder)
    methods = spec["methods"] | {"ours": spec["methods"]["ours"] | {"settings": EXACT | {"symmetry_coef": 2.0}}}
    (folder / "runs" / "simulated" / "1" / "words.json").unlink()
    done = study(write(folder.parent, spec | {"methods": methods}))
    assert done.returncode == 0, done.stderr
    assert "22 runs, 18 of them recorded" in done.stdout
    after = runs(folder)
    ours = {name for name in before if name.endswith("ours.json")}
    assert {name for name in before if after[name] != before[name]} == ours | {"runs/simulated/1/words.json"}


def test_a_bad_setting_fails_its_runs_and_no_others(finished, spec):
    folder, _ = finished
    methods = spec["methods"] | {"letters": spec["methods"]["letters"] | {"settings": {"no_such_key": 1}}}
    done = study(write(folder.parent, spec | {"methods": methods}))
    assert done.returncode == 2
    assert "3 runs failed: letters (simulated, seed 0)" in done.stderr
    assert "; --finished writes tables and figures without them" in done.stderr
    assert "no_such_key" in (folder / "runs" / "simulated" / "0" / "letters.error.txt").read_text()


def test_a_missing_file_is_found_at_the_start(spec, tmp_path):
    config = write(tmp_path, spec | {"output_dir": str(tmp_path / "study")})
    config.write_text("# The data: see there.\n" + config.read_text().replace("train.jsonl", "nowhere.jsonl"))
    done = study(config)
    assert done.returncode == 2
    assert f"nowhere.jsonl: no such file; see the comments at the top of {config}\n" in done.stderr
    assert not runs(tmp_path / "study")


@pytest.mark.slow
def test_it_can_be_stopped_and_continued(spec, tmp_path):
    config = write(tmp_path, spec | {"output_dir": str(tmp_path / "study")})
    running = subprocess.Popen(
        [sys.executable, "recipes/study.py", "--config", str(config)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    while len(runs(tmp_path / "study")) < 4:
        time.sleep(0.2)
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 130
    assert errors.strip().endswith("the same command resumes")
    assert "Traceback" not in errors
    there = runs(tmp_path / "study")
    assert 4 <= len(there) < 22
    assert study(config).returncode == 0
    assert {name: time for name, time in runs(tmp_path / "study").items() if name in there} == there
