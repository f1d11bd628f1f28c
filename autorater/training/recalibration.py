"""The recalibration that a run fits after training, to pairs that are neither trained on nor held out.

    temperature   p ↦ σ(a · logit(p)), a = 1/T
    platt         p ↦ σ(a · logit(p) + b)

a is fitted with a prior to the votes and the difference of both orders, in which a position bias cancels, but is no
further from 1 than the one with the lowest log loss of the answers, each order by itself. Otherwise an a above 1 would
enlarge the bias of a judge that says little about the responses and much about the position.

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


def fit_temperature(judgments: Judgments, pairs: Sequence[Pair], single_votes: bool) -> LogitMap | None:
    """The temperature of N judged pairs; logs it beside the likeliest one. None, with a warning, where none helps.

    Args:
        judgments: Before any recalibration.
        pairs: Their labels and numbers of votes count, not their weights.
        single_votes: Whether every label is one vote; the interval of T is then logged too.
    """
    fitted_to, n_votes = _fitted_to(judgments, pairs)
    of_both, detail = shrunken_temperature(*fitted_to, n_votes), _without_prior(fitted_to, single_votes)
    fitted = _limited(of_both, fit_recalibration("temperature", *fitted_to))
    about = f"{len(pairs):,} pairs, {n_votes:,} votes"
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


def fit_platt(judgments: Judgments, pairs: Sequence[Pair], single_votes: bool) -> LogitMap:
    """The slope and shift of N judged pairs; logs both, and the interval of the shift. Options as above."""
    fitted_to, n_votes = _fitted_to(judgments, pairs)
    of_both, detail = shrunken_temperature(*fitted_to, n_votes), _without_prior(fitted_to, single_votes)
    temperature = _limited(of_both, fit_recalibration("platt", *fitted_to))
    if temperature != of_both:
        detail = f"{_LIMITED}{of_both}, {detail}"
    answers = fitted_to[:2]
    fitted = LogitMap("platt", temperature.slope, fit_shift(temperature.slope, *answers))
    low, high = shift_interval(fitted, *answers)
    logger.info(
        f"recalibrated on {len(pairs):,} pairs, {n_votes:,} votes: {fitted}, 95 % interval {low:+.2f} to {high:+.2f} "
        f"({temperature}, {detail})"
    )
    return fitted


def _fitted_to(judgments: Judgments, pairs: Sequence[Pair]) -> tuple[Answers, int]:
    """Answers and labels, and the number of votes."""
    labels = np.array([pair.label for pair in pairs])
    return (judgments.p_ab, judgments.p_ba, labels), sum(pair.n_votes or 1 for pair in pairs)


def _limited(of_both: LogitMap, of_single: LogitMap) -> LogitMap:
    """The temperature of both orders, no further from 1 than that of single answers."""
    return replace(of_both, slope=float(np.clip(of_both.slope, *sorted((1.0, of_single.slope)))))


def _without_prior(fitted_to: Answers, single_votes: bool) -> str:
    text = f"{fit_recalibration('odd_temperature', *fitted_to)} without the prior"
    if single_votes:
        low, high = temperature_interval(*fitted_to)
        text += f", 95 % interval {low:.2f} to {high:.2f}"
    return text
