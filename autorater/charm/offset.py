"""CHARM: reward models that overvalue a model, calibrated by Elo (Zhu et al., arXiv 2504.10045).

For an over-valued model O and a reference model R that answered the same N prompts, with scores s of a reward model:

    expected win rate    P  = 1 / (1 + 10^((Elo_R − Elo_O) / 400))
    empirical win rate   P̂  = mean σ(s_O − s_R)
    offset Δ             mean σ(s_O + Δ − s_R) = P
    debiased set         the response with the higher score is preferred, s_O + Δ against s_R
    Mismatch Degree      |(P̂ − P) / max(P, 1 − P)|

The Bradley–Terry training of the reward model then continues on the debiased set (`autorater.charm.training`).

The paper finds Δ by gradient descent on (mean σ(…) − P)². The mean is monotone in Δ, so here Δ is the root of a scalar
function, found by Brent's method within logit P − max(s_O − s_R) ≤ Δ ≤ logit P − min(s_O − s_R).
"""

import warnings

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import expit, logit

from autorater.metrics.validation import check_equal_lengths, check_numbers, check_probabilities


def empirical_win_rate(scores_over: ArrayLike, scores_reference: ArrayLike, offset: float = 0.0) -> float:
    """Win rate of the over-valued model by a reward model: mean σ(s_O + Δ − s_R).

    Args:
        scores_over, scores_reference: shape (N,), scores of both models' responses to the same prompts.
        offset: Δ, added to the scores of the over-valued model.

    Raises:
        ValueError: empty input, unequal lengths, NaN or infinite scores.
    """
    return float(expit(_differences(scores_over, scores_reference) + offset).mean())


def fit_offset(scores_over: ArrayLike, scores_reference: ArrayLike, expected: float) -> float:
    """The offset Δ for which the empirical win rate of the over-valued model is the expected one.

    Args:
        scores_over, scores_reference: As in `empirical_win_rate`.
        expected: Win rate P of the over-valued model by Elo, in (0, 1).

    Returns:
        Δ, negative if the model is over-valued. It is exact to floating-point precision; scores beyond 1e7 are too
        coarse for a win rate exact to 1e-9.

    Raises:
        ValueError: As in `empirical_win_rate`, or `expected` is NaN or not in (0, 1): no finite offset makes a model
            win never or always.

    Warns:
        RuntimeWarning: If all score differences are equal: the offset is right on average, but the same model is
            preferred in all pairs.

    Example:
        >>> fit_offset([2.0, 3.0], [1.0, 2.0], expected=0.5)
        -1.0
    """
    differences = _differences(scores_over, scores_reference)
    if np.ndim(expected):
        raise ValueError(f"expected has shape {np.shape(expected)}; expected a single number")
    expected = float(check_probabilities("expected", [expected])[0])
    if expected in (0, 1):
        raise ValueError(f"expected is {expected:g}, which no finite offset reaches; expected a win rate in (0, 1)")
    smallest, largest = differences.min(), differences.max()
    if smallest == largest:
        if len(differences) > 1:
            warnings.warn(
                f"all {len(differences)} score differences are {smallest:g}; with any offset the same model is "
                "preferred in all pairs",
                RuntimeWarning,
                stacklevel=2,
            )
        return float(logit(expected) - smallest)
    margin = 40 + 1e-12 * np.abs(differences).max()  # rounding must not move the root out of the bracket
    low, high = logit(expected) - largest - margin, logit(expected) - smallest + margin
    return float(brentq(lambda x: expit(differences + x).mean() - expected, low, high, xtol=1e-15, maxiter=10_000))


def preferences(scores_over: ArrayLike, scores_reference: ArrayLike, offset: float = 0.0) -> np.ndarray:
    """Labels of the (debiased) preference set, shape (N,): the response that has the higher score with the offset.

    1 for the over-valued model's, −1 for the reference model's, 0 for equal scores. Arguments and errors as in
    `empirical_win_rate`.
    """
    return np.sign(_differences(scores_over, scores_reference) + offset).astype(int)


def _differences(scores_over: ArrayLike, scores_reference: ArrayLike) -> np.ndarray:
    over = check_numbers("scores_over", scores_over)
    reference = check_numbers("scores_reference", scores_reference)
    check_equal_lengths(scores_over=over, scores_reference=reference)
    with np.errstate(over="ignore"):
        return check_numbers("scores_over - scores_reference", over - reference)
