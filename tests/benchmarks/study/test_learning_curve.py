"""What a training costs: the steps alone, and every position that goes through the model in them."""

import pytest
import torch
from transformers import TrainerControl, TrainerState

from autorater.data.population import simulate_pairs
from autorater.judges import Judge
from autorater.prompts.templates import PromptFormat
from benchmarks.study import learning_curve as learning_curve_module
from benchmarks.study.learning_curve import LearningCurve
from tests.conftest import make_model, make_tokenizer


def test_steps_alone_are_counted(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(learning_curve_module.time, "process_time", lambda: now[0])
    tokenizer = make_tokenizer("split")
    judge = Judge(make_model("qwen", len(tokenizer)), tokenizer, PromptFormat("compact"), answer_step=0.25)
    pairs = simulate_pairs(9, n_votes=3).pairs
    learning_curve = LearningCurve(judge, pairs, judge.encoder.encode(pairs), n_pairs=4, every=2)
    assert [pair.id for pair in learning_curve.pairs] == ["train-0", "train-2", "train-4", "train-6"]
    learning_curve.watch(judge.model)
    settings = (None, TrainerState(), TrainerControl())
    learning_curve.on_train_begin(*settings)
    for step in range(1, 5):
        now[0] += 50  # what happens between steps costs nothing
        judge.model(torch.ones(1, 50, dtype=torch.long))
        learning_curve.on_step_begin(*settings)
        judge.model(torch.ones(3, 7, dtype=torch.long))
        now[0] += 2
        settings[1].global_step = step
        learning_curve.on_step_end(*settings)
    assert [point["step"] for point in learning_curve.points] == [0, 2, 4]
    assert [point["tokens"] for point in learning_curve.points] == [0, 42, 84]
    assert learning_curve.tokens == 4 * 21
    assert learning_curve.seconds == pytest.approx(4 * 2)
    assert {"excess_brier", "gap", "symmetry_deviation_abs"} <= set(learning_curve.points[0])


def test_no_measurements_where_none_are_wanted():
    learning_curve = LearningCurve(None, [], [], n_pairs=4, every=0)
    learning_curve.on_train_begin(None, TrainerState(), TrainerControl())
    assert learning_curve.points == []
