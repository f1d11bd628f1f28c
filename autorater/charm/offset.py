"""CHARM: reward models that overvalue a model, calibrated by Elo (Zhu et al., arXiv 2504.10045).

Of an over-valued model O and a reference model R, both answering the same N instructions, with scores s of a reward
model:

    expected win rate    P  = 1 / (1 + 10^((Elo_R − Elo_O) / 400))
    empirical win rate   P̂  = mean σ(s_O − s_R)
    offset Δ             mean σ(s_O + Δ − s_R) = P
    debiased set         s_O + Δ against s_R says which response is preferred
    Mismatch Degree      |(P̂ − P) / max(P, 1 − P)|

and the reward model goes on with its Bradley–Terry training on the debiased set (`autorater.charm.training`).

The paper finds Δ by epochs of gradient descent on (mean σ(…) − P)². The mean is monotone in Δ, so here it is the root
of one scalar equation: Newton's method with the closed-form derivative mean σ(1 − σ), kept inside a bracket that is
known beforehand, logit P − max(s_O − s_R) ≤ Δ ≤ logit P − min(s_O − s_R). It ends at the precision of floats.

NumPy only. Deliberately left out: where scores and Elo come from (`autorater.charm.reward_model`, `autorater.charm.elo`).
"""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import ArrayLike

from autorater.metrics.systems import expected_win_rate, mismatch_degree, sigmoid
from autorater.metrics.validation import check_equal_lengths, check_probabilities, check_scores

__all__ = ["empirical_win_rate", "expected_win_rate", "fit_offset", "mismatch_degree", "preferences"]

_TOLERANCE = 4 * np.finfo(float).eps  # relative; the mean itself is not more exact
_MAX_ROUNDS = 200  # halving alone takes a bracket of any width to neighbouring floats in fewer


def empirical_win_rate(scores_over: ArrayLike, scores_reference: ArrayLike, offset: float = 0.0) -> float:
    """Win rate of the over-valued model by a reward model: mean σ(s_O + Δ − s_R).

    Args:
        scores_over: shape (N,), scores of the over-valued model's responses.
        scores_reference: shape (N,), those of the reference model's to the same instructions.
        offset: Added to the scores of the over-valued model.

    Raises:
        ValueError: empty input, unequal lengths, NaN or infinite scores.
    """
    return float(sigmoid(_differences(scores_over, scores_reference) + offset).mean())


def fit_offset(scores_over: ArrayLike, scores_reference: ArrayLike, expected: float) -> float:
    """The offset Δ with which the empirical win rate of the over-valued model is the expected one.

    Args:
        scores_over: shape (N,), scores of the over-valued model's responses.
        scores_reference: shape (N,), those of the reference model's to the same instructions.
        expected: Win rate P of the over-valued model by Elo, in (0, 1).

    Returns:
        Δ, negative where the model is over-valued. It is exact to the precision of floats; with scores beyond 1e7
        these are too coarse to give the win rate to 1e-9.

    Raises:
        ValueError: empty input, unequal lengths, NaN or infinite scores; `expected` is 0 or 1 (no finite offset makes
            a model win never or always), outside [0, 1] or NaN.

    Warns:
        RuntimeWarning: If all score differences are equal, as those of a reward model that does not tell responses
            apart: the offset is right on average, and puts every single pair on the same side.

    Example:
        >>> fit_offset([2.0, 3.0], [1.0, 2.0], expected=0.5)
        -1.0
    """
    differences = _differences(scores_over, scores_reference)
    if np.ndim(expected):
        raise ValueError(f"expected has shape {np.shape(expected)}; one number is wanted")
    expected = float(check_probabilities("expected", [expected])[0])
    if expected in (0, 1):
        raise ValueError(f"expected is {expected:g}, which no finite offset reaches; a win rate in (0, 1) is wanted")
    smallest, largest = differences.min(), differences.max()
    if smallest == largest and len(differences) > 1:
        warnings.warn(
            f"all {len(differences)} score differences are {smallest:g}; no offset can tell the responses apart, "
            "all pairs will be on the same side",
            RuntimeWarning,
            stacklevel=2,
        )
    return _root(differences, expected, smallest, largest)


def preferences(scores_over: ArrayLike, scores_reference: ArrayLike, offset: float = 0.0) -> np.ndarray:
    """Which response the reward model prefers once the offset is added: the labels of the (debiased) preference set.

    Args:
        scores_over: shape (N,), scores of the over-valued model's responses.
        scores_reference: shape (N,), those of the reference model's to the same instructions.
        offset: Δ of `fit_offset`; 0 for the set without calibration.

    Returns:
        shape (N,): 1 for the over-valued model's, −1 for the reference's, 0 where the scores are equal and nothing is
        preferred.

    Raises:
        ValueError: empty input, unequal lengths, NaN or infinite scores.
    """
    return np.sign(_differences(scores_over, scores_reference) + offset).astype(int)


def _differences(scores_over: ArrayLike, scores_reference: ArrayLike) -> np.ndarray:
    over = check_scores("scores_over", scores_over)
    reference = check_scores("scores_reference", scores_reference)
    check_equal_lengths(scores_over=over, scores_reference=reference)
    with np.errstate(over="ignore"):
        return check_scores("scores_over - scores_reference", over - reference)


def _root(differences: np.ndarray, expected: float, smallest: float, largest: float) -> float:
    """Δ of mean σ(differences + Δ) = expected."""
    target = np.log(expected) - np.log1p(-expected)
    low, high = target - largest, target - smallest
    offset = target - np.median(differences)  # in the bracket, and already the answer where they are all equal
    for _ in range(_MAX_ROUNDS):
        wins = sigmoid(differences + offset)
        excess = wins.mean() - expected
        if abs(excess) <= _TOLERANCE * expected:
            break
        low, high = (low, offset) if excess > 0 else (offset, high)
        slope = (wins * (1 - wins)).mean()
        newton = offset - excess / slope if slope > 0 else np.inf
        step_to = newton if low < newton < high else (low + high) / 2
        if step_to == offset or not low < step_to < high:
            break
        offset = step_to
    return float(offset)
