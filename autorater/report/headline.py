"""One sentence: did training help, how calibrated was the judge and is it now, and what speaks against it.

"Helped" is decided by a proper score, because calibration alone comes cheap (answering the base rate to everything has
no calibration error): the Brier score pair by pair, against p* where it is known, with the 95 % interval of the mean
paired difference. The direction of a miscalibration is the mean of

    confidence − vote share of the response that the judge prefers,

above 0 for an overconfident judge. What is small enough to be called calibrated is a convention, named below.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from autorater.metrics.agreement import verdicts
from autorater.metrics.scores import brier_scores, squared_errors

if TYPE_CHECKING:
    from autorater.evaluation.judge import Evaluation

_CALIBRATED_ECE = 0.02  # answers are right to two hundredths on average
_FLOORS = 1.5  # chance rarely lifts the ECE of a perfect judge higher above its mean than this
_NOISY_FLOOR = 0.05  # votes so few that calibrated and not calibrated look alike
_FLAT = 0.03  # standard deviation below which answers say little about single pairs
_READABLE = 0.98
_Z = 1.959964


def paired_gain(before: Evaluation, after: Evaluation) -> tuple[float, float, float]:
    """Mean paired fall of the (excess) Brier score and its 95 % interval; above 0 if `after` is better.

    Args:
        before: A judge on N pairs.
        after: Another on the same pairs.

    Returns:
        `(mean, low, high)`; the interval is infinite for a single pair.

    Raises:
        ValueError: If the pairs are not the same.
    """
    ids_before, ids_after = ([pair.id for pair in e.pairs] for e in (before, after))
    if ids_before != ids_after:
        raise ValueError(
            f"before ({len(ids_before)} pairs) and after ({len(ids_after)}) were not measured on the same pairs; "
            "the same ids in the same order are wanted"
        )
    score, target = (brier_scores, after.labels) if after.truth is None else (squared_errors, after.truth)
    falls = score(before.probabilities, target) - score(after.probabilities, target)
    falls = falls.reshape(2, -1).mean(axis=0)
    mean = float(falls.mean())
    half = _Z * float(falls.std(ddof=1)) / np.sqrt(falls.size) if falls.size > 1 else float("inf")
    return mean, mean - half, mean + half


def calibration_state(evaluation: Evaluation) -> str:
    """`calibrated`, `overconfident`, `underconfident`, or `miscalibrated` where it is neither throughout."""
    ece, floor = evaluation.metrics["ece"], evaluation.metrics.get("ece_noise_floor", 0.0)
    if ece <= max(_CALIBRATED_ECE, _FLOORS * floor):
        return "calibrated" if floor <= _NOISY_FLOOR else "not distinguishable from calibrated with so few votes"
    answers = evaluation.probabilities
    overconfidence = float((verdicts(answers) * (answers - evaluation.labels)).mean())
    if abs(overconfidence) < ece / 2:
        return "miscalibrated"
    return "overconfident" if overconfidence > 0 else "underconfident"


def verdict(before: Evaluation, after: Evaluation) -> str:
    """The sentence; computed from the figures alone.

    Raises:
        ValueError: If the pairs are not the same.
    """
    _, low, high = paired_gain(before, after)
    name, key = ("Brier score", "brier") if after.truth is None else ("excess Brier score", "excess_brier")
    old, new = before.metrics[key], after.metrics[key]
    if low > 0:
        opening = f"Training improved the judge: its {name} fell from {old:.4f} to {new:.4f}"
    elif high < 0:
        opening = f"Training made the judge worse: its {name} rose from {old:.4f} to {new:.4f}"
    else:
        opening = (
            f"Training made no clear difference: the {name} was {old:.4f} and is {new:.4f}, a change within noise"
        )
    state_before, state_after = calibration_state(before), calibration_state(after)
    if state_before == state_after:
        course = f"it was {state_before} before {_ece(before)} and is so after {_ece(after)}"
    else:
        course = f"it went from {state_before} {_ece(before)} to {state_after} {_ece(after)}"
    caveats = _caveats(after)
    ending = f"; {'but' if low > 0 else 'and'} {' and '.join(caveats)}" if caveats else ""
    return f"{opening}, and {course}{ending}."


def _ece(evaluation: Evaluation) -> str:
    floor = evaluation.metrics.get("ece_noise_floor")
    beside = "" if floor is None else f"; a perfect judge would show {floor:.3f}"
    return f"(ECE {evaluation.metrics['ece']:.3f}{beside})"


def _caveats(after: Evaluation) -> list[str]:
    caveats = []
    spread = float(after.probabilities.std())
    if spread < _FLAT:
        caveats.append(f"its answers hardly vary (standard deviation {spread:.3f}), so they say little about any pair")
    readable = after.metrics.get("parse_rate", 1.0)
    if readable < _READABLE:
        caveats.append(f"only {100 * readable:.1f} % of its answers can be read")
    return caveats
