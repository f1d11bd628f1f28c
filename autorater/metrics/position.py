"""Position bias: how a judge's answers change when the two responses are swapped.

Each pair is judged in both orders. p_ab = Pr[B better] from order ab and p_ba = Pr[A better] from order ba: both are
the probability that the response shown *second* is better. An unbiased judge has p_ba = 1 − p_ab, hence

    symmetry deviation   d = p_ab + p_ba − 1,             d > 0 favours the second response
    symmetrized answer   p_sym = (p_ab + 1 − p_ba) / 2,   Pr[B better] averaged over the orders

The mean squared error of the two orders is that of p_sym plus d²/4, for any label. |d| also shrinks when all answers
move towards 1/2, so it is reported beside the sharpness and by |p_sym − 1/2|. Consistency: Zheng et al. (arXiv
2306.05685).
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from autorater.metrics.agreement import verdicts
from autorater.metrics.intervals import Mean, Share, Statistic, point_estimates
from autorater.metrics.scores import clipped_logit
from autorater.metrics.validation import check_equal_lengths, check_probabilities


def position_bias(p_ab: ArrayLike, p_ba: ArrayLike) -> dict[str, float]:
    """Position bias of a judge over pairs judged in both orders.

    Args:
        p_ab: shape (N,), Pr[B better] from order ab, in [0, 1].
        p_ba: shape (N,), Pr[A better] from order ba, in [0, 1].

    Returns:
        - `consistency`: share of pairs with the same winner, or a tie (an answer of 1/2), in both orders;
          `flip_rate`: 1 − consistency.
        - `first_slot_share`: of the verdicts other than a tie, over both orders, the share for the response shown
          first; 1/2 is fair. Left out if every verdict is a tie.
        - `symmetry_deviation_mean`, `symmetry_deviation_abs`: mean of d, in [−1, 1], and of |d|, in [0, 1].
        - `sharpness_symmetrized`: variance of p_sym over the pairs, in [0, 1/4].

    Raises:
        ValueError: empty input, unequal lengths, NaN, values outside [0, 1].
    """
    p_ab, p_ba = check_probabilities("p_ab", p_ab), check_probabilities("p_ba", p_ba)
    check_equal_lengths(p_ab=p_ab, p_ba=p_ba)
    values = point_estimates(position_statistics(position_terms(p_ab, p_ba)))
    report = {name: value for name, value in values.items() if not np.isnan(value)}
    return report | {"sharpness_symmetrized": float(symmetrize(p_ab, p_ba).var())}


def symmetrize(p_ab: np.ndarray, p_ba: np.ndarray) -> np.ndarray:
    """p_sym = (p_ab + 1 − p_ba) / 2, shape (N,), in [0, 1]."""
    return (p_ab + (1 - p_ba)) / 2


def position_terms(p_ab: np.ndarray, p_ba: np.ndarray) -> dict[str, np.ndarray]:
    """`consistent` (0 or 1), `deviation` (d), `absolute` (|d|), `first` and `decided` of each pair, as the arguments.

    `first` and `decided` count, over both orders, the verdicts for the response shown first and those without a tie.
    """
    second_ab, second_ba, deviation = verdicts(p_ab), verdicts(p_ba), p_ab + p_ba - 1
    return {
        "consistent": (second_ab == -second_ba).astype(np.float64),
        "deviation": deviation,
        "absolute": np.abs(deviation),
        "first": np.sum([second_ab < 0, second_ba < 0], axis=0, dtype=np.float64),
        "decided": np.abs(second_ab) + np.abs(second_ba),
    }


def position_statistics(terms: Mapping[str, np.ndarray], counted: np.ndarray | None = None) -> dict[str, Statistic]:
    """The keys of `position_bias` but `sharpness_symmetrized`, from terms of shape (N,) as `position_terms` has them.

    Pairs that are not `counted`, shape (N,), are left out; by default all count.
    """
    counted = np.ones(len(terms["consistent"])) if counted is None else counted
    return {
        "consistency": Share(counted * terms["consistent"], counted),
        "flip_rate": Share(counted * (1 - terms["consistent"]), counted),
        "first_slot_share": Share(counted * terms["first"], counted * terms["decided"]),
        "symmetry_deviation_mean": Mean(counted * terms["deviation"], counted),
        "symmetry_deviation_abs": Mean(counted * terms["absolute"], counted),
    }


def logit_shifts(p_ab: np.ndarray, p_ba: np.ndarray) -> np.ndarray:
    """(logit p_ab + logit p_ba) / 2: the log-odds that the second position adds to an answer, shaped as the arguments.

    If the judge answers σ(l + b) in order ab and σ(−l + b) in order ba, this is b for any l, while d shrinks as |l|
    grows. Answers are clipped to [0.001, 0.999] first, as in the log reward.
    """
    return (clipped_logit(p_ab) + clipped_logit(p_ba)) / 2
