"""The recalibration that a run fits after training, to pairs that are neither trained on nor held out.

    temperature   p ↦ σ(a · logit(p)), a = 1/T
    platt         p ↦ σ(a · logit(p) + b)

a is fitted with a prior to the votes and the difference of both orders, in which a position bias cancels; to the
probabilities of a teacher without a prior, since they have no noise. It is no further from 1 than the one with the
lowest log loss of the answers, each order by itself. Otherwise an a above 1 would enlarge the bias of a judge that
says little about the responses and much about the position.

b removes the bias that all pairs have in common. It is fitted after a, to single answers, and depends on no vote
(`fit_shift`): it has no prior, because few votes add no noise to it. Since this bias is removed, a is limited by the
slope that is best for single answers together with a shift (`fit_recalibration`, "platt"): only a bias that differs
between pairs holds it back.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from autorater.data.pairs import Pair
from autorater.judges import Judgments
from autorater.judges.calibrators import (
    LogitMap,
    fit_recalibration,
    fit_shift,
    shift_interval,
    shrunken_temperature,
    temperature_interval,
)

logger = logging.getLogger(__name__)
_LIMITED = "limited by the position bias; without that "
Answers = tuple[np.ndarray, np.ndarray, np.ndarray]  # p_ab, p_ba, labels


def fit_temperature(judgments: Judgments, pairs: Sequence[Pair], labels: str) -> LogitMap | None:
    """The temperature of N judged pairs; logs it beside the likeliest one. None, with a warning, where none helps.

    Args:
        judgments: Before any recalibration.
        pairs: Their labels and numbers of votes count, not their weights.
        labels: What their labels are: `sparse`, one vote, with which the interval of T is logged too; `dense`, all
            votes; `teacher`, probabilities of a judge.
    """
    fitted_to, of_both, about, detail = _of_both(judgments, pairs, labels)
    fitted = _limited(of_both, fit_recalibration("temperature", *fitted_to))
    if fitted.slope == 1 != of_both.slope:
        logger.warning(
            f"no temperature: on {about} {of_both} ({detail}) would help both orders averaged and make single answers "
            "worse, because the judge favours a position"
        )
        return None
    if fitted != of_both:
        detail = f"{_LIMITED}{of_both}, {detail}"
    logger.info(f"recalibrated on {about}: {fitted} ({detail})")
    return fitted


def fit_platt(judgments: Judgments, pairs: Sequence[Pair], labels: str) -> LogitMap:
    """The slope and shift of N judged pairs; logs both, and the interval of the shift. Options as above."""
    fitted_to, of_both, about, detail = _of_both(judgments, pairs, labels)
    temperature = _limited(of_both, fit_recalibration("platt", *fitted_to))
    if temperature != of_both:
        detail = f"{_LIMITED}{of_both}, {detail}"
    answers = fitted_to[:2]
    fitted = LogitMap("platt", temperature.slope, fit_shift(temperature.slope, *answers))
    low, high = shift_interval(fitted, *answers)
    logger.info(
        f"recalibrated on {about}: {fitted}, 95 % interval {low:+.2f} to {high:+.2f} ({temperature}, {detail})"
    )
    return fitted


def _of_both(judgments: Judgments, pairs: Sequence[Pair], labels: str) -> tuple[Answers, LogitMap, str, str]:
    """Answers and labels, the temperature of both orders averaged, and for the log what it was fitted to and how."""
    fitted_to = judgments.p_ab, judgments.p_ba, np.array([pair.label for pair in pairs])
    likeliest = fit_recalibration("odd_temperature", *fitted_to)
    if labels == "teacher":
        return fitted_to, likeliest, f"the teacher's probabilities of {len(pairs):,} pairs", "without a prior"
    n_votes, detail = sum(pair.n_votes or 1 for pair in pairs), f"{likeliest} without the prior"
    if labels == "sparse":
        low, high = temperature_interval(*fitted_to)
        detail += f", 95 % interval {low:.2f} to {high:.2f}"
    about = f"{len(pairs):,} pairs, {n_votes:,} votes"
    return fitted_to, shrunken_temperature(*fitted_to, n_votes), about, detail


def _limited(of_both: LogitMap, of_single: LogitMap) -> LogitMap:
    """The temperature of both orders, no further from 1 than that of single answers."""
    return replace(of_both, slope=float(np.clip(of_both.slope, *sorted((1.0, of_single.slope)))))
