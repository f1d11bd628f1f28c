"""Deferral: which judgments may stand, and which pairs go to people.

A judgment stands where |p − 1/2| is at least a threshold. The risk of a threshold is the share of such pairs whose
verdict is not that of the observed majority. Where the votes are split there is none, and the judgment is half wrong,
as is an answer of exactly 1/2. With few votes per pair the majority itself is noisy: the risk of a perfect judge is
then above 0, and its bound is one for agreement with as many further votes, not with the population's preference.

Thresholds are tested from the highest down, each at level δ, until one fails (fixed sequence testing, a case of
learn-then-test, arXiv 2110.01052): the promise

    Pr[risk of the returned threshold > α] ≤ δ   over the draw of the pairs

then requires no correction for their number. A test is Clopper and Pearson's (1934): with e errors in n pairs, the
threshold passes if a binomial variable of n and α is at most e with probability δ or less. Half errors are rounded up
in total. The first threshold leaves a tenth of the pairs to the judge, and enough to pass with two errors; the others
go down in steps of a twentieth. Both are chosen without the votes, as the proof requires. It is exact for odd numbers
of votes; half errors vary less than whole ones, so with them the promise is kept with room to spare in simulations.

The pairs must be independent, drawn like those to be judged later, and not used to train or calibrate the judge.
"""

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import bdtr

from autorater.metrics.agreement import verdicts
from autorater.metrics.validation import (
    DECIMALS,
    check_equal_lengths,
    check_numbers,
    check_probabilities,
    check_share,
)

_SPARE_ERRORS = 2
_FIRST_SHARE = 0.1
_STEPS = 20


def deferral_threshold(
    probabilities: ArrayLike, votes_a: ArrayLike, votes_b: ArrayLike, *, alpha: float, delta: float
) -> float | None:
    """The lowest threshold at which judgments disagree with the majority at most at the rate alpha.

    Args:
        probabilities: shape (N,), Pr[B preferred] by the judge, in [0, 1].
        votes_a, votes_b: shape (N,), votes for A and for B, at least 0, whole or not. Equal numbers are no majority,
            none at all included: leave pairs without votes out.
        alpha: Highest acceptable rate of disagreement, in (0, 1).
        delta: Probability that the promise fails, in (0, 1).

    Returns:
        The threshold in [0, 0.5]: judgments with |p − 0.5| at or above it, both rounded to 9 decimals, may stand: in
        binary 0.7 − 0.5 is below 0.5 − 0.3. None where the votes cannot support alpha at any threshold.

    Raises:
        ValueError: empty input, unequal lengths, NaN, values outside their range.

    Example:
        >>> deferral_threshold([0.9, 0.2] * 50, [0, 3] * 50, [3, 0] * 50, alpha=0.1, delta=0.05)
        0.3
        >>> deferral_threshold([0.9, 0.2] * 5, [0, 3] * 5, [3, 0] * 5, alpha=0.1, delta=0.05) is None
        True
    """
    margins, errors = _margins_and_errors(probabilities, votes_a, votes_b)
    for name, value in (("alpha", alpha), ("delta", delta)):
        check_share(name, value)
    threshold = None
    for n in _candidates(margins, alpha, delta):
        n_errors = np.ceil(errors[:n].sum())
        if n_errors >= n or bdtr(n_errors, n, alpha) > delta:
            break
        threshold = float(margins[:n].min())
    return threshold


def risk_curve(probabilities: ArrayLike, votes_a: ArrayLike, votes_b: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Share of pairs left to the judge, and its disagreement with the majority, at every threshold, the highest first.

    Args and errors as in `deferral_threshold`.
    """
    margins, errors = _margins_and_errors(probabilities, votes_a, votes_b)
    n = _distinct(margins)
    return n / margins.size, errors.cumsum()[n - 1] / n


def _margins_and_errors(
    probabilities: ArrayLike, votes_a: ArrayLike, votes_b: ArrayLike
) -> tuple[np.ndarray, np.ndarray]:
    """|p − 1/2| and errors (0, 1/2 or 1), by falling margin."""
    probabilities = check_probabilities("probabilities", probabilities)
    votes_a, votes_b = check_numbers("votes_a", votes_a, 0), check_numbers("votes_b", votes_b, 0)
    check_equal_lengths(probabilities=probabilities, votes_a=votes_a, votes_b=votes_b)
    errors = (1 - verdicts(probabilities) * np.sign(votes_b - votes_a)) / 2
    margins = np.abs(probabilities - 0.5)
    order = np.argsort(-margins.round(DECIMALS), kind="stable")
    return margins[order], errors[order]


def _distinct(margins: np.ndarray) -> np.ndarray:
    """Numbers of pairs at or above each margin, ascending; equal margins stay together."""
    last = np.diff(margins.round(DECIMALS)) != 0
    return np.append(np.flatnonzero(last) + 1, margins.size)


def _candidates(margins: np.ndarray, alpha: float, delta: float) -> np.ndarray:
    """Numbers of pairs at the tested thresholds, ascending."""
    distinct = _distinct(margins)
    sizes = np.arange(1, margins.size + 1)
    enough = sizes[bdtr(_SPARE_ERRORS, sizes, alpha) <= delta]
    first = max(enough[0], _FIRST_SHARE * margins.size) if enough.size else margins.size
    wanted = np.unique(np.linspace(first, margins.size, _STEPS + 1).round())
    return np.unique(distinct[np.searchsorted(distinct, wanted)])
