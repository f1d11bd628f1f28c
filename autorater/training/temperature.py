"""The temperature that a run fits after training, to pairs that are neither trained on nor held out."""

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from autorater.data.pairs import Pair
from autorater.judges import Judgments
from autorater.judges.calibrators import (
    LogitMap,
    fit_recalibration,
    shrunken_temperature,
    temperature_interval,
)

logger = logging.getLogger(__name__)


def fit_temperature(judgments: Judgments, pairs: Sequence[Pair], single_votes: bool) -> LogitMap | None:
    """The temperature of N judged pairs; logs it beside the likeliest one. None, with a warning, where none helps.

    It is fitted with a prior to the difference of both orders, in which a position bias cancels, but is no further
    from 1 than the one with the lowest log loss of the answers, each order by itself. Otherwise a temperature below 1
    would enlarge the bias of a judge that says little about the responses and much about the position.

    Args:
        judgments: Before any recalibration.
        pairs: Their labels and numbers of votes count, not their weights.
        single_votes: Whether every label is one vote; the interval of T is then logged too.
    """
    fitted_to = judgments.p_ab, judgments.p_ba, np.array([pair.label for pair in pairs])
    n_votes = sum(pair.n_votes or 1 for pair in pairs)
    of_both = shrunken_temperature(*fitted_to, n_votes)
    of_single = fit_recalibration("temperature", *fitted_to)
    slope = float(np.clip(of_both.slope, *sorted((1.0, of_single.slope))))
    detail = f"{fit_recalibration('odd_temperature', *fitted_to)} without the prior"
    if single_votes:
        low, high = temperature_interval(*fitted_to)
        detail += f", 95 % interval {low:.2f} to {high:.2f}"
    about = f"{len(pairs):,} pairs, {n_votes:,} votes"
    if slope == 1 != of_both.slope:
        logger.warning(
            f"no temperature: on {about} {of_both} ({detail}) would help both orders averaged and make single answers "
            "worse, because the judge favours a position"
        )
        return None
    if slope != of_both.slope:
        detail = f"limited by the position bias; without that {of_both}, {detail}"
    fitted = replace(of_both, slope=slope)
    logger.info(f"recalibrated on {about}: {fitted} ({detail})")
    return fitted
