"""The temperature that a run fits after training, to pairs that are neither trained on nor held out."""

import logging
from collections.abc import Sequence

import numpy as np

from autorater.data.pairs import Pair
from autorater.judges import Judgments
from autorater.judges.calibrators import (
    LogitMap,
    fit_recalibration,
    shrunken_temperature,
    temperature_interval,
)
from autorater.metrics.scores import log_scores

logger = logging.getLogger(__name__)


def fit_temperature(judgments: Judgments, pairs: Sequence[Pair], single_votes: bool) -> LogitMap | None:
    """The temperature of N judged pairs, with a prior; logs it beside the likeliest one.

    It is left out, with a warning, where it raises the log loss of the answers, each order by itself. A temperature
    below 1 does so if the judge favours a position: it is fitted to the difference of both orders, in which that
    cancels, and makes the bias of each order larger.

    Args:
        judgments: Before any recalibration.
        pairs: Their labels and numbers of votes count, not their weights.
        single_votes: Whether every label is one vote; the interval of T is then logged too.
    """
    labels = np.array([pair.label for pair in pairs])
    fitted_to = judgments.p_ab, judgments.p_ba, labels
    n_votes = sum(pair.n_votes or 1 for pair in pairs)
    fitted = shrunken_temperature(*fitted_to, n_votes)
    detail = f"{fit_recalibration('odd_temperature', *fitted_to)} without the prior"
    if single_votes:
        low, high = temperature_interval(*fitted_to)
        detail += f", 95 % interval {low:.2f} to {high:.2f}"
    answers, targets = np.concatenate(fitted_to[:2]), np.concatenate([labels, 1 - labels])
    before, after = (log_scores(p, targets).mean() for p in (answers, fitted(answers)))
    about = f"{len(pairs):,} pairs, {n_votes:,} votes: {fitted} ({detail})"
    if after > before + 1e-9:
        logger.warning(
            f"no temperature: that of {about} raises the log loss of single answers from {before:.3f} to {after:.3f}, "
            "because the judge favours a position"
        )
        return None
    logger.info(f"recalibrated on {about}")
    return fitted
