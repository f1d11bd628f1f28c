"""What a training costs: the steps alone, and every position that goes through the model in them."""

import time

import torch
from transformers import TrainerControl, TrainerState

from autorater.data.population import simulate_pairs
from autorater.judges import Judge
from autorater.prompts.templates import PromptFormat
from benchmarks.study.course import Course
from tests.conftest import make_model, make_tokenizer


def busy(seconds):
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


def test_steps_alone_are_counted():
    tokenizer = make_tokenizer("split")
    judge = Judge(make_model("qwen", len(tokenizer)), tokenizer, PromptFormat("compact"), answer_step=0.25)
    pairs = simulate_pairs(9, n_votes=3).pairs
    course = Course(judge, pairs, judge.encoder.encode(pairs), n_pairs=4, every=2)
    assert [pair.id for pair in course.pairs] == ["train-0", "train-2", "train-4", "train-6"]
    course.watch(judge.model)
    told = (None, TrainerState(), TrainerControl())
    course.on_train_begin(*told)
    for step in range(1, 5):
        busy(0.05)  # what happens between steps costs nothing
        judge.model(torch.ones(1, 50, dtype=torch.long))
        course.on_step_begin(*told)
        judge.model(torch.ones(3, 7, dtype=torch.long))
        busy(0.02)
        told[1].global_step = step
        course.on_step_end(*told)
    assert [point["step"] for point in course.points] == [0, 2, 4]
    assert [point["tokens"] for point in course.points] == [0, 42, 84]
    assert course.tokens == 4 * 21
    assert 0.08 <= course.seconds < 0.2
    assert {"excess_brier", "gap", "symmetry_deviation_abs"} <= set(course.points[0])


def test_no_measurements_where_none_are_wanted():
    course = Course(None, [], [], n_pairs=4, every=0)
    course.on_train_begin(None, TrainerState(), TrainerControl())
    assert course.points == []
