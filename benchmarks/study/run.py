"""One run of a study: train, judge every test, measure; the result is a plain dictionary.

    hash, settings                settings of the run
    predictions[name][test]       `p_ab`, `p_ba` of every pair, rounded to 1e-4, and `metrics`; for a warm start by
                                  every judging method and post-processing, or a `reason` why it is not available; for
                                  a judge trained on recorded votes also with a temperature on the symmetrized logit
    pairs[test]                   for a warm start: `id`, `label`, `n_votes`, `true_probability` of the pairs, in order
    left_out                      pairs of each test with over-long prompts; they are the same for all methods
    learning_curve, training_seconds, training_tokens
                                  of training, see `benchmarks.study.learning_curve`
    seconds, cpu_seconds          of the whole run

Deliberately left out: storage and scheduling of runs (`benchmarks.study.runner`); runs of a pretrained model
(`benchmarks.study.pretrained`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from transformers import set_seed

from autorater.data.pairs import Pair
from autorater.evaluation.judge import Evaluation, column, evaluate, measure
from autorater.evaluation.method_judgments import ComparedPairs
from autorater.evaluation.methods import compare_methods
from autorater.judges import Judge, Judgments
from autorater.judges.options import METHODS
from autorater.prompts.batching import drop_long
from autorater.training.arguments import JudgeArguments
from autorater.training.data import TrainingData
from autorater.training.warm_start import build_warm_policy
from benchmarks.study.baselines import baseline_probabilities
from benchmarks.study.data import TEST, StudyArguments, calibration_pairs, prepare_dataset
from benchmarks.study.plan import Run
from benchmarks.study.training import TrainingSpec, open_judge, parse_settings, train

MEAN = "answer_mean"
VARIANTS = ("none", "temperature", "contextual", "batch", "swap", "odd_temperature", "swap+odd_temperature")
_DECIMALS = 4


def train_and_evaluate(run: Run, folder: str | Path) -> dict:
    """Trains and evaluates one run.

    Args:
        run: The run.
        folder: Folder of the study; the warm-started policy is written to it or loaded from it.

    Raises:
        ValueError: If its settings are invalid.
    """
    began, cpu_began = time.perf_counter(), time.process_time()
    policy = Path(folder, run.policy)
    args, study, training = parse_settings(run.trainer, run.settings, policy.parent)
    answer_step = run.settings["answer_step"]
    data, tests = prepare_dataset(args, run.seed, dict(run.tests))
    set_seed(run.seed)
    if run.trainer == "warm_start":
        Path(folder, run.path).unlink(missing_ok=True)  # its policy is overwritten, also if this run is stopped
        build_warm_policy(args, training, data)
    judge = open_judge("grpo", policy, args, answer_step, ties=False)
    tests, result = fitting_tests(run, data, tests, judge, args.max_prompt_tokens)

    if run.trainer == "warm_start":
        predicted = _predict(judge, tests, study.n_bootstrap)
        result["predictions"] = _compared(judge, args, study, tests[TEST], run.seed) | {MEAN: predicted}
        result["pairs"] = {name: known_targets(pairs) for name, pairs in tests.items()}
    elif run.trainer == "text":
        result["predictions"] = text_baselines(data, tests, study.n_bootstrap)
    else:
        ties = any(pair.votes_tie for pair in data.train)
        judge = open_judge(run.trainer, policy, args, answer_step, ties)
        pairs, prompts, _ = drop_long(data.train, judge.encoder.encode(data.train), args.max_prompt_tokens)
        learning_curve = train(run.trainer, TrainingSpec(judge, args, study, training, pairs, prompts), tests[TEST])
        result |= {
            "learning_curve": learning_curve.points,
            "training_seconds": learning_curve.seconds,
            "training_tokens": learning_curve.tokens,
        }
        result["n_train"] = len(pairs)
        result["predictions"] = {MEAN: _predict(judge, tests, study.n_bootstrap)}
        if args.dataset_name is not None:
            only = {"methods": [MEAN], "variants": ["odd_temperature"]}
            result["predictions"] |= _compared(judge, args, study, tests[TEST], run.seed, **only)
    clocks = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu_began}
    return result | {name: round(value, 1) for name, value in clocks.items()}


def fitting_tests(
    run: Run, data: TrainingData, tests: dict[str, list[Pair]], judge: Judge, max_prompt_tokens: int
) -> tuple[dict[str, list[Pair]], dict]:
    """The test pairs whose prompts fit, and the result of a run as far as it is known before its predictions."""
    kept = {name: drop_long(pairs, judge.encoder.encode(pairs), max_prompt_tokens) for name, pairs in tests.items()}
    result = {"dataset": run.dataset, "seed": run.seed, "method": run.method, "trainer": run.trainer}
    result |= {"hash": run.hash, "settings": dict(run.settings), "data": data.summary}
    result["left_out"] = {name: left_out for name, (_, _, left_out) in kept.items()}
    return {name: pairs for name, (pairs, _, _) in kept.items()}, result


def _predict(judge: Judge, tests: dict[str, list[Pair]], n_bootstrap: int) -> dict:
    """Predictions on every test. Tests with the same texts are judged once."""
    known: dict[tuple[str, ...], Judgments] = {}
    predictions = {}
    for name, pairs in tests.items():
        texts = tuple(pair.response_a + pair.response_b for pair in pairs)
        if texts in known:
            evaluation = measure(pairs, known[texts], n_bootstrap=n_bootstrap)
        else:
            evaluation = evaluate(judge, pairs, n_bootstrap=n_bootstrap)
            known[texts] = evaluation.judgments
        predictions[name] = record(evaluation)
    return predictions


def _compared(
    judge: Judge,
    args: JudgeArguments,
    study: StudyArguments,
    pairs: list[Pair],
    seed: int,
    methods: Sequence[str] = METHODS,
    variants: Sequence[str] = VARIANTS,
) -> dict:
    """Predictions on the test by several judging methods; post-processing is fitted on other pairs."""
    calibration = calibration_pairs(args, study, seed)
    calibration, _, _ = drop_long(calibration, judge.encoder.encode(calibration), args.max_prompt_tokens)
    compared = ComparedPairs(pairs, calibration)
    entries = compare_methods(judge, compared, methods=methods, variants=variants, seed=seed, n_bootstrap=0)
    return {
        entry.key: {TEST: {"reason": entry.reason} if entry.evaluation is None else record(entry.evaluation)}
        for entry in entries
    }


def text_baselines(data: TrainingData, tests: dict[str, list[Pair]], n_bootstrap: int) -> dict:
    """Predictions of every text baseline on every test."""
    predictions: dict[str, dict] = {}
    for name, pairs in tests.items():
        for baseline, p in baseline_probabilities(data.train, pairs).items():
            both = np.stack([p, 1 - p], axis=1)
            judgments = Judgments(both, both, np.zeros_like(both), np.ones_like(both))
            predictions.setdefault(baseline, {})[name] = record(measure(pairs, judgments, n_bootstrap=n_bootstrap))
    return predictions


def record(evaluation: Evaluation) -> dict:
    """Probabilities and metrics of one test."""
    judgments = evaluation.judgments
    columns = {"p_ab": judgments.p_ab, "p_ba": judgments.p_ba}
    return {name: p.round(_DECIMALS).tolist() for name, p in columns.items()} | {"metrics": evaluation.metrics}


def known_targets(pairs: Sequence[Pair]) -> dict:
    """What the pairs of a test are measured against."""
    columns = {name: column(pairs, name) for name in ("label", "n_votes", "true_probability")}
    known = {name: None if values is None else values.round(6).tolist() for name, values in columns.items()}
    return {"id": [pair.id for pair in pairs]} | known
