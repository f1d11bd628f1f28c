"""A study of a pretrained model as a person runs it: recipes in their own folders, taken over and resumed."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from autorater.data.loading import write_pairs
from autorater.data.population import simulate_pairs
from benchmarks.study.plan import read_plan
from benchmarks.study.pretrained import recipe_options
from tests.conftest import make_model, make_tokenizer
from tests.recipes.test_study import ROOT, study, write

EXACT = {"answers": "exact", "per_device_train_batch_size": 2}
CONFIG = ROOT / "recipes" / "configs" / "study_smollm2.yaml"


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    """A toy model, recorded votes, one method of every recipe."""
    folder = tmp_path_factory.mktemp("pretrained")
    tokenizer = make_tokenizer(chat=True)
    make_model("llama", len(tokenizer)).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    for name, held_out in (("train", False), ("test", True)):
        pairs = simulate_pairs(30, n_votes=3, seed=1, held_out=held_out).pairs
        write_pairs([replace(pair, true_probability=None) for pair in pairs], folder / f"{name}.jsonl")
    sampled = {"answers": "sampled", "orders": "separate", "num_generations": 2, "scale_rewards": "group"}
    methods = {
        "words": ("text", {}),
        "probe": ("probe", {}),
        "pointwise": ("grpo", {"judgment": "pointwise", "batch_tokens": 400}),
        "exact": ("grpo", EXACT | {"warm_start_steps": 2}),
        "usual": ("grpo", sampled | {"per_device_train_batch_size": 4}),
        "letters": ("alignment", {"ablate": ["kl"], "labels": "sparse", "per_device_train_batch_size": 4}),
        "dense": ("sft", {"objective": "text", "labels": "dense", "per_device_train_batch_size": 4}),
    }
    listed = {n: {"title": n, "trainer": t, "datasets": ["votes"], "settings": s} for n, (t, s) in methods.items()}
    data = {"dataset_name": str(folder / "train.jsonl"), "eval_dataset_name": str(folder / "test.jsonl")}
    return {
        "output_dir": str(folder / "study"),
        "seeds": [0],
        "processes": 1,
        "common": {
            "model_name_or_path": str(folder / "model"), "prompt_template": "compact", "answer_step": 0.25,
            "n_bootstrap": 10, "max_prompt_tokens": 400,
        },
        "training": {"max_steps": 2, "n_eval_pairs": 0, "save_steps": 1, "report_to": "none", "use_cpu": True},
        "datasets": {"votes": {"title": "Votes", "settings": data, "tests": {"objective": {"n_pairs": 12}}}},
        "methods": listed,
        "figures": {"dataset": "votes", "ours": "exact", "usual": "usual"},
    }  # fmt: skip


def only(spec, *names):
    return spec | {"methods": {name: spec["methods"][name] for name in names}}


@pytest.mark.slow
def test_every_method_has_its_row(spec):
    folder = Path(spec["output_dir"])
    done = study(write(folder.parent, spec), timeout=1500)
    assert done.returncode == 0, done.stderr
    text = (folder / "study.md").read_text()
    for title in ("always 1/2", "zero-shot, the number it writes", "zero-shot, letters A and B", *spec["methods"]):
        if title != "words":
            assert f"| {title} | " in text
    assert "exact against usual: above the noise" in text
    numbers = json.loads((folder / "study.json").read_text())["datasets"]["votes"]
    assert numbers["pointwise"]["bias"]["value"] == 0
    assert {"each", "both", "right", "objective_before", "objective_answer_mean"} <= set(numbers["letters"])
    metrics = json.loads((folder / "runs" / "votes" / "0" / "exact" / "metrics.json").read_text())
    assert numbers["exact"]["each"]["value"] == pytest.approx(metrics["after/mse_dense"], abs=1e-3)
    assert (folder / "figures" / "votes.png").stat().st_size > 5_000
    again = study(write(folder.parent, spec), "--finished")
    assert "8 runs, 8 of them recorded" in again.stdout


@pytest.mark.slow
def test_a_finished_run_is_taken_over_and_another_refused(spec, tmp_path):
    few = only(spec, "pointwise", "probe") | {"output_dir": str(tmp_path / "first")}
    few["figures"] = {"dataset": "votes", "ours": "pointwise", "usual": "probe"}
    assert study(write(tmp_path, few)).returncode == 0
    trained = tmp_path / "first" / "runs" / "votes" / "0" / "pointwise"
    taken = tmp_path / "second" / "runs" / "votes" / "0" / "pointwise"
    shutil.copytree(trained, taken)
    weights = (taken / "model.safetensors").stat().st_mtime_ns
    assert study(write(tmp_path, few | {"output_dir": str(tmp_path / "second")})).returncode == 0
    assert (taken / "model.safetensors").stat().st_mtime_ns == weights, "not trained again"
    assert taken.with_suffix(".json").exists()
    other = few | {"output_dir": str(tmp_path / "second"), "training": few["training"] | {"learning_rate": 0.5}}
    done = study(write(tmp_path, other))
    assert done.returncode == 2
    assert "pointwise (votes, seed 0)" in done.stderr
    assert "learning_rate" in (taken / "log.txt").read_text()


@pytest.mark.parametrize("quick", [False, True])
def test_the_options_of_the_recipes_are_known(quick, tmp_path):
    """Every run of the config, as the parser of its recipe reads it."""
    from trl import ModelConfig, TrlParser

    from autorater.alignment.arguments import AlignmentArguments
    from autorater.training.arguments import DenseArguments, JudgeArguments
    from benchmarks.study.training import CONFIGS

    plan = read_plan(CONFIG, quick=quick)
    assert plan.pretrained
    arguments = {"sft": DenseArguments, "alignment": AlignmentArguments}
    for run in plan.runs:
        if run.trainer not in ("text", "probe"):
            kinds = (arguments.get(run.trainer, JudgeArguments), CONFIGS[run.trainer], ModelConfig)
            options = recipe_options(run, tmp_path / run.folder, tmp_path / "judgments")
            TrlParser(kinds).parse_dict(options | {"use_cpu": True})
    assert yaml.safe_load(CONFIG.read_text())["figures"]["ours"] in plan.methods
