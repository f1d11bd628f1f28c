"""Pieces of a study of a pretrained model that need no training: predictions by pair, intervals, the noise floor."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from autorater.data.errors import UserError
from autorater.evaluation.judge import measure
from autorater.evaluation.results import write_run
from autorater.judges import Judgments
from benchmarks.study import pretrained
from benchmarks.study.plan import Run
from benchmarks.study.pretrained import read_predictions
from benchmarks.study.pretrained_page import Row, estimate, noise
from benchmarks.study.results import BEFORE, MEAN
from benchmarks.study.run import record
from tests.conftest import make_model, make_tokenizer


def judgments(p_ab, p_ba):
    mean = np.stack([p_ab, p_ba], axis=1)
    return Judgments(mean, mean, np.zeros_like(mean), np.ones_like(mean))


def test_predictions_are_matched_by_pair(simulated, tmp_path):
    pairs, random = simulated.pairs[:20], np.random.default_rng(0)
    before, after = (measure(pairs, judgments(*random.random((2, 20)).round(4)), n_bootstrap=0) for _ in range(2))
    write_run(tmp_path, before, after, training_seconds=1.0)
    some = [pairs[i] for i in (7, 3, 11)]
    read = read_predictions(tmp_path / "predictions.jsonl", some, 0)
    np.testing.assert_allclose(read[MEAN].judgments.mean, after.judgments.mean[[7, 3, 11]])
    np.testing.assert_allclose(read[BEFORE].judgments.mean, before.judgments.mean[[7, 3, 11]])
    for other in (replace(pairs[0], id="elsewhere"), replace(pairs[0], label=1 - pairs[0].label + 1e-3)):
        with pytest.raises(UserError, match="no prediction for pair"):
            read_predictions(tmp_path / "predictions.jsonl", [other], 0)


def test_minutes_are_with_the_warm_start_and_tokens_those_of_the_last_step_that_has_them(simulated, tmp_path):
    pairs, random = simulated.pairs[:5], np.random.default_rng(0)
    one = measure(pairs, judgments(*random.random((2, 5))), n_bootstrap=0)
    write_run(tmp_path, one, one, training_seconds=20.0)
    (tmp_path / "run.json").write_text(json.dumps({"warm_start_seconds": 300.0}))
    lines = [
        {"step": 10, "num_tokens": 900.0},
        {"step": 20, "num_tokens": 1800.0},
        {"step": 20, "train_runtime": 20.0},
    ]
    (tmp_path / "log.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    result = pretrained._trained(tmp_path, "no model is needed", {"test": pairs}, 0, tmp_path)
    assert (result["training_seconds"], result["training_tokens"], result["steps"]) == (320.0, 1800.0, 20)
    (tmp_path / "run.json").write_text("{}")
    assert pretrained._trained(tmp_path, "", {"test": pairs}, 0, tmp_path)["training_seconds"] == 20.0


def test_estimates_are_means_over_pairs_and_seeds(simulated):
    pairs = simulated.pairs[:30]
    label = np.array([pair.label for pair in pairs])
    targets = {"label": label, "n_votes": np.full(30, 3.0)}
    runs = []
    for shift in (0.1, 0.3):
        p = np.clip(label + shift, 0, 1)
        recorded = record(measure(pairs, judgments(p, np.clip(1 - label + shift, 0, 1)), n_bootstrap=0))
        runs.append({"predictions": {MEAN: {"test": json.loads(json.dumps(recorded))}}})
    row = Row("shifted", "none", runs, MEAN)
    both = estimate(row, targets, "both")
    assert both.value == pytest.approx(np.mean(both.seeds))
    assert both.low < both.value < both.high
    assert estimate(row, targets, "each").value >= both.value
    first = np.array(runs[0]["predictions"][MEAN]["test"]["p_ab"]), runs[0]["predictions"][MEAN]["test"]["p_ba"]
    assert estimate(row, targets, "bias").seeds[0] == pytest.approx(np.abs(first[0] + first[1] - 1).mean())
    assert estimate(row, targets, "right").value == 1, "the sign is unchanged; ties have no majority"
    assert estimate(row, targets, "both", prediction=BEFORE) is None


def test_the_options_of_a_recipe(tmp_path):
    settings = {"model_name_or_path": "method:start", "max_steps": 3, "n_bootstrap": 5, "judgment": "pointwise"}
    settings |= {"answer_step": 0.05, "prompt_template": "compact", "warm_start_verdicts": "method:teacher"}
    run = Run("votes", 0, "mine", "grpo", settings, {})
    options = pretrained.recipe_options(run, tmp_path / "0" / "mine", tmp_path / "judgments")
    assert options == {
        "model_name_or_path": str(tmp_path / "0" / "start"), "max_steps": 3, "judgment": "pointwise",
        "run_name": "mine (votes, seed 0)", "output_dir": str(tmp_path / "0" / "mine"),
        "warm_start_verdicts": str(tmp_path / "0" / "teacher"), "untrained_judgments_dir": str(tmp_path / "judgments"),
    }  # fmt: skip


def test_a_judge_that_was_trained_again_is_another_one(tmp_path, monkeypatch):
    tokenizer = make_tokenizer(chat=True)
    make_model("llama", len(tokenizer)).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    settings = {"model_name_or_path": str(tmp_path / "model"), "answer_step": 0.25, "n_train": 4, "n_test": 4}
    start = Run("votes", 0, "warm start", "warm_start", settings, {})
    teacher = Run("votes", 0, "teacher", "grpo", settings, {}, start)
    taught = replace(teacher, method="taught", settings=settings | {"warm_start_verdicts": "method:teacher"})
    taught = replace(taught, needs=(teacher,))
    begun = []
    monkeypatch.setattr(pretrained, "run_recipe", lambda script, options: begun.append(options["run_name"]))
    monkeypatch.setattr(pretrained, "_trained", lambda *_: {})

    def trained(name, max_steps):
        (tmp_path / teacher.folder).mkdir(parents=True, exist_ok=True)
        content = {"run": name, "settings": {"max_steps": max_steps}, "completed": ["report"]}
        (tmp_path / teacher.folder / "run.json").write_text(json.dumps(content))

    trained("first", 5)
    for run in (teacher, taught, replace(taught, settings=taught.settings | {"n_bootstrap": 9})):
        pretrained.train_and_evaluate(run, tmp_path)
    assert len(begun) == 3, "the judge is the same one"
    for name, max_steps in (("second", 5), ("first", 6)):
        trained(name, max_steps)
        with pytest.raises(UserError, match=r"taught was begun with another judge of teacher.*; remove the folder"):
            pretrained.train_and_evaluate(taught, tmp_path)
    shutil.rmtree(tmp_path / taught.folder)
    pretrained.train_and_evaluate(taught, tmp_path)
    assert len(begun) == 4


def test_the_noise_of_shares_is_unbiased():
    random = np.random.default_rng(1)
    truth, n_votes = random.random(4000), random.integers(1, 6, 4000)
    label = random.binomial(n_votes, truth) / n_votes
    several = n_votes > 1
    wanted = np.mean((label - truth)[several] ** 2)
    assert noise({"label": label, "n_votes": n_votes}) == pytest.approx(wanted, rel=0.08)
