"""The headline of a training report: did training help, how calibrated is the judge, what limits it.

A proper score decides whether training helped, since calibration alone is cheap (a judge that always answers the base
rate has no calibration error): the (excess) Brier score of each pair, with the 95 % interval of the mean paired
difference. A judge is overconfident if the mean of

    answer − vote share, both for the response that the judge prefers,

is above 0. The thresholds below are conventions.
"""

import numpy as np
from scipy.special import stdtrit

from autorater.evaluation.judge import Evaluation
from autorater.metrics.paired import mean_and_error
from autorater.metrics.scores import brier_scores, squared_errors

_CALIBRATED_ECE = 0.02  # answers are off by at most two hundredths on average
_SLIGHT_ECE = 0.05
_FLOORS = 1.5  # by chance, the ECE of a perfect judge is rarely above 1.5 times its mean
_NOISY_FLOOR = 0.05  # above it there are too few votes to tell calibrated from miscalibrated
_FLAT = 0.03  # standard deviation below which answers say little about single pairs
_PARSE_RATE = 0.98


def paired_gain(before: Evaluation, after: Evaluation) -> tuple[float, float, float]:
    """Mean paired decrease of the (excess) Brier score and its 95 % interval; above 0 if `after` is better.

    Differences are summed by the clusters of `after`, whose pairs are dependent; Student's t with one degree of
    freedom less than there are clusters.

    Returns:
        `(mean, low, high)`; the interval is infinite for a single cluster.

    Raises:
        ValueError: If `before` and `after` are not of the same N pairs.
    """
    ids_before, ids_after = ([pair.id for pair in e.pairs] for e in (before, after))
    if ids_before != ids_after:
        raise ValueError(
            f"before ({len(ids_before)} pairs) and after ({len(ids_after)}) were not measured on the same pairs; "
            "expected the same ids in the same order"
        )
    return _gain(before.probabilities, after)


def _gain(answers: np.ndarray, after: Evaluation) -> tuple[float, float, float]:
    """`paired_gain` against other answers, shape (2 N,)."""
    score, target = (brier_scores, after.labels) if after.truth is None else (squared_errors, after.truth)
    falls = (score(answers, target) - score(after.probabilities, target)).reshape(2, -1).mean(axis=0)
    weights = np.ones(falls.size) if after.weights is None else after.weights[: falls.size]
    clusters = np.arange(falls.size) if after.clusters is None else after.clusters
    mean, error, freedom = mean_and_error(falls, weights, clusters)
    half = float(stdtrit(freedom, 0.975)) * error if freedom else np.inf
    return mean, mean - half, mean + half


def calibration_state(evaluation: Evaluation) -> str:
    """`calibrated`, `overconfident`, `underconfident` or a phrase in their place; `slightly …` for a small ECE."""
    ece, floor = evaluation.metrics["ece"], evaluation.metrics.get("ece_noise_floor", 0.0)
    if ece <= max(_CALIBRATED_ECE, _FLOORS * floor):
        return "calibrated" if floor <= _NOISY_FLOOR else "not distinguishable from calibrated with so few votes"
    overconfidence = evaluation.metrics["gap"]
    if abs(overconfidence) < ece / 2:
        state = "overconfident on some pairs and underconfident on others"
    else:
        state = "overconfident" if overconfidence > 0 else "underconfident"
    return f"slightly {state}" if ece <= _SLIGHT_ECE else state


def headline(before: Evaluation, after: Evaluation) -> str:
    """Two short sentences, from the metrics alone, and one for each limitation; errors as in `paired_gain`."""
    _, low, high = paired_gain(before, after)
    name, key = ("Brier score", "brier") if after.truth is None else ("excess Brier score", "excess_brier")
    old, new = f"{before.metrics[key]:.4f}", f"{after.metrics[key]:.4f}"
    improved, worse = (side and old != new for side in (low > 0, high < 0))  # what no digit shows is no change
    effect = "improved the judge" if improved else "made the judge worse" if worse else "made no clear difference"
    scores = (
        f"{name} {old} → {new} ({constant_answers(after.metrics, key)}), "
        f"calibration error {before.metrics['ece']:.3f} → {after.metrics['ece']:.3f}{perfect_judge(after.metrics)}"
    )
    return " ".join(
        [
            f"Training {effect}: {scores}.",
            *_against_constants(after),
            _calibration(before, after, improved),
            *_limitations(after),
        ]
    )


def measured_on(n_pairs: int, pointwise: bool) -> str:
    """The held-out pairs in a phrase, with how they are judged."""
    how = "each response read alone" if pointwise else "each judged in both orders"
    return f"{n_pairs:,} held-out pairs, {how}"


def perfect_judge(metrics: dict[str, float]) -> str:
    """` (a perfect judge would show 0.007)`: the ECE's noise floor; empty where it is not known."""
    floor = metrics.get("ece_noise_floor")
    return "" if floor is None else f" (a perfect judge would show {floor:.3f})"


def constant_answers(metrics: dict[str, float], key: str) -> str:
    """The score of two constant answers, in words; `key` is `brier` or `excess_brier`."""
    constant, base_rate = (metrics[f"{key}_{name}"] for name in ("constant", "base_rate"))
    return f"always answering 0.5: {constant:.4f}, the base rate: {base_rate:.4f}"


def _against_constants(after: Evaluation) -> list[str]:
    n = len(after.pairs)
    rate = np.average(after.labels[:n], weights=None if after.weights is None else after.weights[:n])
    for name, constant in (("0.5", 0.5), ("the base rate", rate)):
        _, low, high = _gain(np.repeat([constant, 1 - constant], n), after)
        if low <= 0:
            return [f"It is {'worse' if high < 0 else 'not clearly better'} than always answering {name}."]
    return []


def _calibration(before: Evaluation, after: Evaluation, improved: bool) -> str:
    old, new = calibration_state(before), calibration_state(after)
    calibrated = "calibrated" in new
    if improved and "calibrated" in old and not calibrated:
        return f"Its answers are more accurate but no longer calibrated: it is now {new}."
    by_less = not calibrated and "slightly" not in new and after.metrics["ece"] < 0.9 * before.metrics["ece"]
    change = f"is still {new}" if old == new else f"was {old} before and is now {new}"
    return f"It {change}{', but by less' if by_less else ''}."


def _limitations(after: Evaluation) -> list[str]:
    limitations = []
    if (spread := after.probabilities.std()) < _FLAT:
        limitations.append(
            f"Its answers hardly vary (standard deviation {spread:.3f}): they carry little information."
        )
    if (parse_rate := after.metrics.get("parse_rate", 1.0)) < _PARSE_RATE:
        share = f"{100 * parse_rate:.1f} %"
        limitations.append(f"On average only {share} of the probability is on answers that parse.")
    return limitations
