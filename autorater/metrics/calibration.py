"""Calibration of probabilities against votes.

A label is the share of votes for B, so 0/1 labels, ties (1/2) and dense labels use the same formulas:

    ECE           Σ_b n_b/N · |ȳ_b − p̄_b|                               Guo et al. (arXiv 1706.04599)
    debiased L2   sqrt max(0, Σ_b n_b/N · [(ȳ_b − p̄_b)² − v_b])       Kumar et al. (arXiv 1909.10155)
    smooth ECE    the width s of a Gaussian kernel with smECE_s = s     Błasiok and Nakkiran (arXiv 2309.12236)
    Murphy        Brier = reliability − resolution + uncertainty        Murphy (1973)

v_b = s_b²/n_b is the variance of the mean label of bin b. The Murphy decomposition is exact, because its bins are the
distinct answers. Noise of the mean labels biases reliability and resolution upward and uncertainty downward; the
corrected terms remove this bias and keep the sum: Ferro and Fricker (2012).

The headline is the calibration of Pr[B preferred]. Top-label calibration, of the side that the answer favours, cannot
detect that a judge favours B throughout. `noise.py` gives the ECE that a perfect judge would show.
"""

import numpy as np
from numpy.typing import ArrayLike

from autorater.metrics.agreement import verdicts
from autorater.metrics.binning import N_BINS, Strategy, bin_indices
from autorater.metrics.clusters import cluster_numbers
from autorater.metrics.scores import brier_scores, log_scores, squared_errors
from autorater.metrics.validation import (
    check_equal_lengths,
    check_predictions,
    check_votes,
    check_weights,
)

_INTERVALS = 10_000  # answers of up to four decimals are grid points; 2 * 10_000 has only the factors 2 and 5
_HALVINGS = 30  # of the bracket of the smooth ECE, to 1e-9


def reliability_curve(
    probabilities: ArrayLike,
    labels: ArrayLike,
    n_bins: int = N_BINS,
    strategy: Strategy = "uniform",
    weights: ArrayLike | None = None,
) -> dict[str, np.ndarray]:
    """The reliability diagram as numbers: `probability` (mean prediction), `label` (mean label) and `count` per bin.

    Empty bins are left out; predictions ascend; `count` is the sum of the weights. Args and errors as in
    `expected_calibration_error`.
    """
    probabilities, labels = check_predictions(probabilities, labels)
    weights = check_weights(weights, labels.size)
    return _curve(probabilities, labels, bin_indices(probabilities, n_bins, strategy), weights)


def expected_calibration_error(
    probabilities: ArrayLike,
    labels: ArrayLike,
    n_bins: int = N_BINS,
    strategy: Strategy = "uniform",
    weights: ArrayLike | None = None,
) -> float:
    """Expected calibration error, Σ_b n_b/N · |mean label − mean prediction|, in [0, 1].

    Guo et al. (arXiv 1706.04599), but the prediction is compared with the votes, not the confidence of a verdict with
    its accuracy.

    Args:
        probabilities: shape (N,), Pr[B preferred], in [0, 1].
        labels: shape (N,), share of votes for B, in [0, 1].
        n_bins: number of bins; not used by "distinct".
        strategy: bins of "uniform" width, of equal mass ("quantile"), or one per "distinct" answer; see `binning.py`.
        weights: shape (N,), at least 0, how much each prediction counts; default 1.

    Raises:
        ValueError: empty input, unequal lengths, NaN, values outside their range, unknown strategy, n_bins below 1.

    Example:
        >>> expected_calibration_error([0.3, 0.3, 0.9], [0, 1, 1])
        0.16666666666666666
    """
    probabilities, labels = check_predictions(probabilities, labels)
    weights = check_weights(weights, labels.size)
    return _binned_error(probabilities, labels, bin_indices(probabilities, n_bins, strategy), weights)


def calibration_metrics(
    probabilities: ArrayLike,
    labels: ArrayLike,
    n_votes: ArrayLike | None = None,
    units: ArrayLike | None = None,
    weights: ArrayLike | None = None,
) -> dict[str, float]:
    """Proper scores and calibration errors of probabilities against votes.

    Args:
        probabilities: shape (N,), Pr[B preferred], in [0, 1].
        labels: shape (N,), share of votes for B, in [0, 1]; a tie vote counts one half.
        n_votes: number of votes per label, one number or shape (N,); used by `mse_corrected` only.
        units: shape (N,), rows with equal values are dependent (both orders of a pair, one topic); used by
            `ece_debiased` and the corrected decomposition.
        weights: shape (N,), at least 0, how much each prediction counts in every mean; default 1. Bins of equal mass
            have equal numbers of predictions all the same.

    Returns:
        - `brier`, `log_loss`: mean score against every vote (`scores.py`); `mse_dense`: mean (p − y)².
        - `mse_corrected`: mean of (p − y)² − y (1 − y)/(m − 1) over the rows with m >= 2 votes, if there are any: an
          unbiased estimate of E(p − p*)² (it may be below 0); with ties it is too low.
        - `ece`, `ece_quantile`: ten bins of equal width or of equal mass; `smooth_ece`: bin-free.
        - `ece_debiased`: on the bins of `ece_quantile` that hold several units, if there are any.
        - `ece_toplabel`: `ece` of the probability of the side that the answer favours, ½ counting for both;
          `ece_classwise`: mean of `ece` for B and for A.
        - `ece_majority`: `ece` against the majority of each label, without split labels. For comparison with published
          numbers only: it ranks the true p* below a majority voter.
        - `reliability`, `resolution`, `uncertainty`: brier = reliability − resolution + uncertainty, exactly; each
          also as `…_corrected`, without the bias of few votes, if an answer was given by several units.
        - `sharpness`: variance of p; `distinct_answers`: number of distinct p, to nine decimals.

    Raises:
        ValueError: empty input, unequal lengths, NaN, values outside [0, 1], n_votes not whole or below 1.
    """
    probabilities, labels = check_predictions(probabilities, labels)
    if units is not None:
        units = cluster_numbers(units)
        check_equal_lengths(probabilities=probabilities, units=units)
    weights = check_weights(weights, labels.size)

    def mean(values: np.ndarray) -> float:
        return float(np.average(values, weights=weights))

    squared = squared_errors(probabilities, labels)
    uniform, quantile, distinct = (
        bin_indices(probabilities, N_BINS, strategy) for strategy in ("uniform", "quantile", "distinct")
    )
    ece = _binned_error(probabilities, labels, uniform, weights)
    side = verdicts(probabilities)
    report = {
        "brier": mean(brier_scores(probabilities, labels)),
        "log_loss": mean(log_scores(probabilities, labels)),
        "mse_dense": mean(squared),
        "ece": ece,
        "ece_quantile": _binned_error(probabilities, labels, quantile, weights),
        "ece_toplabel": _uniform_error(
            np.maximum(probabilities, 1 - probabilities), 0.5 + side * (labels - 0.5), weights
        ),
        "ece_classwise": (ece + _uniform_error(1 - probabilities, 1 - labels, weights)) / 2,
        "smooth_ece": smooth_error(probabilities, labels, weights),
        **_decomposition(probabilities, labels, distinct, units, weights),
        "sharpness": mean((probabilities - mean(probabilities)) ** 2),
        "distinct_answers": float(distinct.max() + 1),
    }
    debiased = _debiased_square(probabilities, labels, quantile, units, weights)
    if debiased is not None:
        report["ece_debiased"] = max(0.0, debiased) ** 0.5
    majority = verdicts(labels)
    decided = majority != 0
    if weights[decided].any():
        report["ece_majority"] = _binned_error(
            probabilities[decided], (1 + majority[decided]) / 2, uniform[decided], weights[decided]
        )
    if n_votes is not None:
        votes = check_votes(n_votes, labels.size)
        several = votes > 1
        if weights[several].any():
            noise = (labels * (1 - labels))[several] / (votes[several] - 1)
            report["mse_corrected"] = float(np.average(squared[several] - noise, weights=weights[several]))
    return report


def smooth_error(probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> float:
    """Smooth ECE (Błasiok and Nakkiran, arXiv 2309.12236), in [0, 1]: the fixed point smECE_s = s of

        smECE_s = ∫₀¹ | mean_i (y_i − p_i) K_s(p_i, t) | dt,   K_s a reflected Gaussian of width s.

    The cosine transform multiplies coefficient k of K_s by exp(−s² π² k² / 2). So the residuals are spread on a grid
    of step 1e-4 and transformed once; each trial width then costs one FFT.
    """
    coefficients = _cosine_coefficients(probabilities, weights * (labels - probabilities) / weights.sum())
    frequencies = np.pi * np.arange(coefficients.size)

    def error(width: float) -> float:
        damped = coefficients * np.exp(-0.5 * (width * frequencies) ** 2)
        density = np.abs(np.fft.irfft(damped)[: _INTERVALS + 1]) * 2  # times the step of the integral: 2 M · 1/M
        return float(density.sum() - (density[0] + density[-1]) / 2)

    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if error(middle) > middle else (low, middle)
    return high if low > 0 else 0.0


def _cosine_coefficients(probabilities: np.ndarray, residuals: np.ndarray) -> np.ndarray:
    position = probabilities * _INTERVALS
    left = np.minimum(position.astype(np.int64), _INTERVALS - 1)
    share = position - left
    mass = np.bincount(left, residuals * (1 - share), _INTERVALS + 1)
    mass += np.bincount(left + 1, residuals * share, _INTERVALS + 1)
    # The even extension of period 2: each inner point appears twice, with half its mass.
    inner = mass[1:-1] / 2
    return np.fft.rfft(np.concatenate([mass[:1], inner, mass[-1:], inner[::-1]])).real


def _curve(
    probabilities: np.ndarray, labels: np.ndarray, bins: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    count = np.bincount(bins, weights)
    filled = count > 0
    count = count[filled]
    return {
        "probability": np.bincount(bins, weights * probabilities)[filled] / count,
        "label": np.bincount(bins, weights * labels)[filled] / count,
        "count": count,
    }


def _binned_error(probabilities: np.ndarray, labels: np.ndarray, bins: np.ndarray, weights: np.ndarray) -> float:
    return float(np.abs(np.bincount(bins, weights * (labels - probabilities))).sum() / weights.sum())


def _uniform_error(probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> float:
    return _binned_error(probabilities, labels, bin_indices(probabilities, N_BINS, "uniform"), weights)


def _variances_of_means(
    labels: np.ndarray, bins: np.ndarray, units: np.ndarray | None, weights: np.ndarray
) -> np.ndarray:
    """Variance of the mean label of each bin, NaN in bins of fewer than two units; residuals are summed by unit."""
    mass, n_units = np.bincount(bins, weights), np.bincount(bins, weights > 0)  # pairs of weight 0 do not count
    residuals = weights * (labels - (np.bincount(bins, weights * labels) / np.where(mass > 0, mass, 1))[bins])
    owner = bins
    if units is not None:
        pairs, pair = np.unique(bins * (int(units.max()) + 1) + units, return_inverse=True)  # (bin, unit)
        residuals, owner = np.bincount(pair, residuals), pairs // (int(units.max()) + 1)
        n_units = np.bincount(owner, np.bincount(pair, weights) > 0, mass.size)
    squares = np.bincount(owner, residuals**2, mass.size)
    several = (n_units > 1) & (mass > 0)
    variances = np.full(mass.size, np.nan)
    variances[several] = (n_units / np.maximum(n_units - 1, 1) * squares)[several] / mass[several] ** 2
    return variances


def _debiased_square(
    probabilities: np.ndarray,
    labels: np.ndarray,
    bins: np.ndarray,
    units: np.ndarray | None,
    weights: np.ndarray,
) -> float | None:
    """Kumar's estimate of the mean squared gap, which may be below 0; None if no bin holds two units."""
    variance = _variances_of_means(labels, bins, units, weights)
    usable = ~np.isnan(variance)
    if not usable.any():
        return None
    mass = np.bincount(bins, weights)[usable]
    gap = np.bincount(bins, weights * (labels - probabilities))[usable] / mass
    return float(np.average(gap**2 - variance[usable], weights=mass))


def _decomposition(
    probabilities: np.ndarray,
    labels: np.ndarray,
    bins: np.ndarray,
    units: np.ndarray | None,
    weights: np.ndarray,
) -> dict[str, float]:
    probability, label, mass = _curve(probabilities, labels, bins, weights).values()
    base_rate = np.average(labels, weights=weights)
    reliability = float(np.average((probability - label) ** 2, weights=mass))
    resolution = float(np.average((label - base_rate) ** 2, weights=mass))
    uncertainty = float(base_rate * (1 - base_rate))
    terms = {"reliability": reliability, "resolution": resolution, "uncertainty": uncertainty}
    within = _variances_of_means(labels, bins, units, weights)
    (overall,) = _variances_of_means(labels, np.zeros_like(bins), units, weights)
    if np.isnan(within).all() or np.isnan(overall):
        return terms
    noise = float(np.average(np.nan_to_num(within), weights=np.bincount(bins, weights)))
    return terms | {
        "reliability_corrected": reliability - noise,
        "resolution_corrected": resolution - noise + float(overall),
        "uncertainty_corrected": uncertainty + float(overall),
    }
