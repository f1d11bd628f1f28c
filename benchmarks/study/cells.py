"""One cell of a study: what is trained, what is said of every test, and how good that is, as a plain dictionary.

    hash, settings              what it was told
    readings[name][test]        `p_ab`, `p_ba` of every pair, rounded to 1e-4, and `metrics`; of a warm start by every
                                judging method and what is put on top of it, or `reason` why there is none; of a
                                judge trained on recorded votes also with an odd temperature
    pairs[test]                 of a warm start: `id`, `label`, `n_votes`, `true_probability` of the pairs, in order
    left_out                    pairs of each test whose prompt is too long; they are the same for all methods
    course, training_seconds, training_tokens
                                of a training, see `benchmarks.study.course`
    seconds, cpu_seconds        of the whole cell

Deliberately left out: where cells are kept and when they are run (`benchmarks.study.running`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from transformers import set_seed

from autorater.data.pairs import Pair
from autorater.evaluation.judge import Evaluation, column, evaluate, measure
from autorater.evaluation.methods import compare_methods
from autorater.judges import Judge, Judgments
from autorater.judges.methods import METHODS
from autorater.prompts.batching import drop_long
from autorater.training.config import JudgeArguments
from autorater.training.data import TrainingData
from autorater.training.warm_start import build_warm_policy
from benchmarks.study.baselines import baseline_probabilities
from benchmarks.study.grounds import TEST, StudyArguments, calibration_pairs, prepare_ground
from benchmarks.study.plan import Cell
from benchmarks.study.training import Lesson, open_judge, parse_settings, train

MEAN = "answer_mean"
VARIANTS = ("none", "temperature", "contextual", "batch", "swap", "odd_temperature", "swap+odd_temperature")
_DECIMALS = 4


def run_cell(cell: Cell, folder: str | Path) -> dict:
    """Runs a cell.

    Args:
        cell: What to run.
        folder: Of the study; the warm start is written to it, or read from it.

    Raises:
        ValueError: If its settings do not fit.
    """
    began, cpu_began = time.perf_counter(), time.process_time()
    policy = Path(folder, cell.policy)
    args, study, training = parse_settings(cell.trainer, cell.settings, policy.parent)
    answer_step = cell.settings["answer_step"]
    data, tests = prepare_ground(args, cell.seed, dict(cell.tests))
    set_seed(cell.seed)
    if cell.trainer == "warm_start":
        build_warm_policy(args, training, data)
    judge = open_judge("grpo", policy, args, answer_step, ties=False)
    kept = {
        name: drop_long(pairs, judge.encoder.encode(pairs), args.max_prompt_tokens) for name, pairs in tests.items()
    }
    tests, left_out = {name: k[0] for name, k in kept.items()}, {name: k[2] for name, k in kept.items()}
    result: dict = {"ground": cell.ground, "seed": cell.seed, "method": cell.method, "trainer": cell.trainer}
    result |= {"hash": cell.hash, "settings": dict(cell.settings), "data": data.summary, "left_out": left_out}

    if cell.trainer == "warm_start":
        read = _read(judge, tests, study.n_bootstrap)
        result["readings"] = _compared(judge, args, study, tests[TEST], cell.seed) | {MEAN: read}
        result["pairs"] = {name: _known(pairs) for name, pairs in tests.items()}
    elif cell.trainer == "text":
        result["readings"] = _text_baselines(data, tests, study.n_bootstrap)
    else:
        ties = any(pair.votes_tie for pair in data.train)
        judge = open_judge(cell.trainer, policy, args, answer_step, ties)
        pairs, prompts, _ = drop_long(data.train, judge.encoder.encode(data.train), args.max_prompt_tokens)
        course = train(cell.trainer, Lesson(judge, args, study, training, pairs, prompts), tests[TEST])
        result |= {"course": course.points, "training_seconds": course.seconds, "training_tokens": course.tokens}
        result["n_train"] = len(pairs)
        result["readings"] = {MEAN: _read(judge, tests, study.n_bootstrap)}
        if args.dataset_name is not None:
            only = {"methods": [MEAN], "variants": ["odd_temperature"]}
            result["readings"] |= _compared(judge, args, study, tests[TEST], cell.seed, **only)
    clocks = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu_began}
    return result | {name: round(value, 1) for name, value in clocks.items()}


def _read(judge: Judge, tests: dict[str, list[Pair]], n_bootstrap: int) -> dict:
    """What a judge says of every test. Tests with the same texts are judged once."""
    read: dict[tuple[str, ...], Judgments] = {}
    said = {}
    for name, pairs in tests.items():
        texts = tuple(pair.response_a + pair.response_b for pair in pairs)
        if texts in read:
            evaluation = measure(pairs, read[texts], n_bootstrap=n_bootstrap)
        else:
            evaluation = evaluate(judge, pairs, n_bootstrap=n_bootstrap)
            read[texts] = evaluation.judgments
        said[name] = _record(evaluation)
    return said


def _compared(
    judge: Judge,
    args: JudgeArguments,
    study: StudyArguments,
    pairs: list[Pair],
    seed: int,
    methods: Sequence[str] = METHODS,
    variants: Sequence[str] = VARIANTS,
) -> dict:
    """What a judge says of the test by several methods, with what is put on top of them fitted on other pairs."""
    calibration = calibration_pairs(args, study, seed)
    calibration, _, _ = drop_long(calibration, judge.encoder.encode(calibration), args.max_prompt_tokens)
    entries = compare_methods(judge, pairs, calibration, methods=methods, variants=variants, seed=seed, n_bootstrap=0)
    return {
        entry.key: {TEST: {"reason": entry.reason} if entry.evaluation is None else _record(entry.evaluation)}
        for entry in entries
    }


def _text_baselines(data: TrainingData, tests: dict[str, list[Pair]], n_bootstrap: int) -> dict:
    readings: dict[str, dict] = {}
    for name, pairs in tests.items():
        for baseline, p in baseline_probabilities(data.train, pairs).items():
            both = np.stack([p, 1 - p], axis=1)
            said = Judgments(both, both, np.zeros_like(both), np.ones_like(both))
            readings.setdefault(baseline, {})[name] = _record(measure(pairs, said, n_bootstrap=n_bootstrap))
    return readings


def _record(evaluation: Evaluation) -> dict:
    said = evaluation.judgments
    columns = {"p_ab": said.p_ab, "p_ba": said.p_ba}
    return {name: p.round(_DECIMALS).tolist() for name, p in columns.items()} | {"metrics": evaluation.metrics}


def _known(pairs: Sequence[Pair]) -> dict:
    columns = {name: column(pairs, name) for name in ("label", "n_votes", "true_probability")}
    known = {name: None if values is None else values.round(6).tolist() for name, values in columns.items()}
    return {"id": [pair.id for pair in pairs]} | known
