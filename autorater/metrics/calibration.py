"""Calibration of probabilities against votes.

A label is the share of votes for B, so 0/1 labels, ties (1/2) and dense labels go through the same formulas:

    ECE           Σ_b n_b/N · |ȳ_b − p̄_b|                               Guo et al. (arXiv 1706.04599)
    debiased L2   sqrt max(0, Σ_b n_b/N · [(ȳ_b − p̄_b)² − v_b])       Kumar et al. (arXiv 1909.10155)
    Murphy        Brier = reliability − resolution + uncertainty        Murphy (1973)

v_b = s_b²/n_b is the variance of the mean label of bin b; for 0/1 labels it is Kumar's ȳ_b (1 − ȳ_b)/(n_b − 1).

The decomposition is exact here, not approximate: its bins are the distinct answers, and the Brier score against a vote
share is the mean over the votes (`scores.py`), so that each bin contributes (p − ȳ_b)² + ȳ_b (1 − ȳ_b). Its first two
terms are too high, since mean labels are noisy, and the third is too low. Taking Σ_b n_b/N · v_b from the first two
and adding the variance of ȳ to the last two leaves the sum as it is: Ferro and Fricker (2012).

Whose calibration? Of Pr[B preferred] itself, which is the headline; of the probability of both sides (class-wise); or
of the side that the judge is on (top-label), which cannot see that it leans to one. Three names for three questions.

Plug-in ECE is biased upward, by more the fewer the votes; `noise.py` says how much a perfect judge would show.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from autorater.metrics.agreement import verdicts
from autorater.metrics.binning import Strategy, bin_indices
from autorater.metrics.scores import brier_scores, log_scores, squared_errors
from autorater.metrics.smoothing import smooth_error
from autorater.metrics.validation import check_equal_lengths, check_probabilities, check_votes

_N_BINS = 10


def _check(probabilities: ArrayLike, labels: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    probabilities = check_probabilities("probabilities", probabilities)
    labels = check_probabilities("labels", labels)
    check_equal_lengths(probabilities=probabilities, labels=labels)
    return probabilities, labels


def _curve(probabilities: np.ndarray, labels: np.ndarray, bins: np.ndarray) -> dict[str, np.ndarray]:
    count = np.bincount(bins)
    filled = count > 0
    count = count[filled]
    return {
        "probability": np.bincount(bins, probabilities)[filled] / count,
        "label": np.bincount(bins, labels)[filled] / count,
        "count": count,
    }


def _binned_error(probabilities: np.ndarray, labels: np.ndarray, bins: np.ndarray) -> float:
    return float(np.abs(np.bincount(bins, labels - probabilities)).sum() / labels.size)


def reliability_curve(
    probabilities: ArrayLike, labels: ArrayLike, n_bins: int = 10, strategy: Strategy = "uniform"
) -> dict[str, np.ndarray]:
    """The reliability diagram as numbers; the ECE is its weighted mean gap.

    Args:
        probabilities: shape (N,), Pr[B preferred], in [0, 1].
        labels: shape (N,), share of votes for B, in [0, 1].
        n_bins: number of bins; not used by "distinct".
        strategy: "uniform" (equal width, right-closed), "quantile" (equal mass, ties kept together) or "distinct"
            (one bin per distinct answer).

    Returns:
        `probability` (mean prediction), `label` (mean label) and `count`, one entry per bin that is not empty, in
        ascending order of prediction.

    Raises:
        ValueError: empty input, unequal lengths, NaN, values outside [0, 1], unknown strategy, n_bins below 1.
    """
    probabilities, labels = _check(probabilities, labels)
    return _curve(probabilities, labels, bin_indices(probabilities, n_bins, strategy))


def expected_calibration_error(
    probabilities: ArrayLike, labels: ArrayLike, n_bins: int = 10, strategy: Strategy = "uniform"
) -> float:
    """Expected calibration error, Σ_b n_b/N · |mean label − mean prediction|, in [0, 1].

    Guo et al. (arXiv 1706.04599), with one difference: the prediction is compared with the votes themselves, not the
    confidence of a verdict with its accuracy.

    Args:
        probabilities: shape (N,), Pr[B preferred], in [0, 1].
        labels: shape (N,), share of votes for B, in [0, 1].
        n_bins: number of bins; not used by "distinct".
        strategy: as in `reliability_curve`.

    Raises:
        ValueError: empty input, unequal lengths, NaN, values outside [0, 1], unknown strategy, n_bins below 1.

    Example:
        >>> expected_calibration_error([0.3, 0.3, 0.9], [0, 1, 1])
        0.16666666666666666
    """
    probabilities, labels = _check(probabilities, labels)
    return _binned_error(probabilities, labels, bin_indices(probabilities, n_bins, strategy))


def _uniform_error(probabilities: np.ndarray, labels: np.ndarray) -> float:
    return _binned_error(probabilities, labels, bin_indices(probabilities, _N_BINS, "uniform"))


def _variances_of_means(labels: np.ndarray, bins: np.ndarray, units: np.ndarray | None) -> np.ndarray:
    """Variance of the mean label of each bin, shape (max bin + 1,); NaN in bins of fewer than two units.

    Rows of one unit, such as the two orders of a pair, hang together: their residuals are summed before squaring.
    """
    count = np.bincount(bins)
    residuals = labels - (np.bincount(bins, labels) / np.maximum(count, 1))[bins]
    n_units, owner = count, bins
    if units is not None:
        cells, cell = np.unique(bins * (int(units.max()) + 1) + units, return_inverse=True)
        residuals, owner = np.bincount(cell, residuals), cells // (int(units.max()) + 1)
        n_units = np.bincount(owner, minlength=count.size)
    squares = np.bincount(owner, residuals**2, count.size)
    several = n_units > 1
    variances = np.full(count.size, np.nan)
    variances[several] = (n_units / np.maximum(n_units - 1, 1) * squares)[several] / count[several] ** 2
    return variances


def _debiased_square(
    probabilities: np.ndarray, labels: np.ndarray, bins: np.ndarray, units: np.ndarray | None = None
) -> float | None:
    """Kumar's estimate of the mean squared gap, which may be below 0; None if no bin holds two units."""
    variance = _variances_of_means(labels, bins, units)
    usable = ~np.isnan(variance)  # one row says nothing about the noise of its own mean
    if not usable.any():
        return None
    count = np.bincount(bins)[usable]
    gap = np.bincount(bins, labels - probabilities)[usable] / count
    return float(np.average(gap**2 - variance[usable], weights=count))


def _decomposition(
    probabilities: np.ndarray, labels: np.ndarray, bins: np.ndarray, units: np.ndarray | None
) -> dict[str, float]:
    curve = _curve(probabilities, labels, bins)
    base_rate = labels.mean()
    reliability = float(np.average((curve["probability"] - curve["label"]) ** 2, weights=curve["count"]))
    resolution = float(np.average((curve["label"] - base_rate) ** 2, weights=curve["count"]))
    terms = {
        "reliability": reliability,
        "resolution": resolution,
        "uncertainty": float(base_rate * (1 - base_rate)),
    }
    within = _variances_of_means(labels, bins, units)
    (overall,) = _variances_of_means(labels, np.zeros_like(bins), units)
    if np.isnan(within).all() or np.isnan(overall):
        return terms
    noise = float(np.average(np.nan_to_num(within), weights=curve["count"]))
    return terms | {
        "reliability_corrected": reliability - noise,
        "resolution_corrected": resolution - noise + float(overall),
        "uncertainty_corrected": terms["uncertainty"] + float(overall),
    }


def calibration_metrics(
    probabilities: ArrayLike,
    labels: ArrayLike,
    n_votes: ArrayLike | None = None,
    units: ArrayLike | None = None,
) -> dict[str, float]:
    """Proper scores and calibration errors of probabilities against votes.

    Args:
        probabilities: shape (N,), Pr[B preferred], in [0, 1].
        labels: shape (N,), share of votes for B, in [0, 1]; a tie vote counts one half.
        n_votes: number of votes behind each label, one number or shape (N,); used by `mse_corrected` alone.
        units: shape (N,), rows with equal values hang together (both orders of a pair, one topic); used by
            `ece_debiased` and the corrected decomposition, which need to know how noisy mean labels are.

    Returns:
        - `brier`, `log_loss`: mean score against every vote, as defined in `scores.py`; lower is better.
        - `mse_dense`: mean (p − y)², the squared distance to the vote share.
        - `mse_corrected`: mean of (p − y)² − y (1 − y)/(m − 1) over the rows with m >= 2 votes. For votes without ties
          it estimates E(p − p*)² without bias (and may fall below 0); ties make it too low, for y (1 − y) then
          overstates the spread of the votes. Left out without such rows.
        - `ece`, `ece_quantile`: ten bins of equal width or of equal mass.
        - `ece_debiased`: debiased L2 error on the bins of `ece_quantile`; bins of one unit are passed over, and the
          key is left out if there are no others.
        - `ece_toplabel`: `ece` of the probability of the side that the answer is on, ½ counting for both;
          `ece_classwise`: mean of `ece` for B and for A.
        - `smooth_ece`: bin-free, Błasiok and Nakkiran (arXiv 2309.12236).
        - `ece_majority`: `ece` against the majority of each label, split labels dropped. Kept for comparison with
          published numbers: by it the true p* looks worse than a majority voter. Left out if all labels are split.
        - `reliability`, `resolution`, `uncertainty`: brier = reliability − resolution + uncertainty, exactly.
          `reliability_corrected`, `resolution_corrected`, `uncertainty_corrected`: the same sum, without the bias that
          few votes an answer leave; may fall below 0. Answers given by a single unit keep theirs, and the keys are
          left out if there are no others.
        - `sharpness`: variance of p.
        - `distinct_answers`: number of distinct p, to nine decimals.

    Raises:
        ValueError: empty input, unequal lengths, NaN, values outside [0, 1], n_votes not whole or below 1.
    """
    probabilities, labels = _check(probabilities, labels)
    if units is not None:
        _, units = np.unique(np.asarray(units), return_inverse=True)
        check_equal_lengths(probabilities=probabilities, units=units)
    squared = squared_errors(probabilities, labels)
    uniform, quantile, distinct = (
        bin_indices(probabilities, _N_BINS, strategy) for strategy in ("uniform", "quantile", "distinct")
    )
    ece = _binned_error(probabilities, labels, uniform)
    side = verdicts(probabilities)
    report = {
        "brier": float(brier_scores(probabilities, labels).mean()),
        "log_loss": float(log_scores(probabilities, labels).mean()),
        "mse_dense": float(squared.mean()),
        "ece": ece,
        "ece_quantile": _binned_error(probabilities, labels, quantile),
        "ece_toplabel": _uniform_error(np.maximum(probabilities, 1 - probabilities), 0.5 + side * (labels - 0.5)),
        "ece_classwise": (ece + _uniform_error(1 - probabilities, 1 - labels)) / 2,
        "smooth_ece": smooth_error(probabilities, labels),
        **_decomposition(probabilities, labels, distinct, units),
        "sharpness": float(probabilities.var()),
        "distinct_answers": float(distinct.max() + 1),
    }
    debiased = _debiased_square(probabilities, labels, quantile, units)
    if debiased is not None:
        report["ece_debiased"] = max(0.0, debiased) ** 0.5
    majority = verdicts(labels)
    decided = majority != 0
    if decided.any():
        report["ece_majority"] = _binned_error(probabilities[decided], (1 + majority[decided]) / 2, uniform[decided])
    if n_votes is not None:
        votes = check_votes("n_votes", n_votes, labels.size)
        several = votes > 1
        if several.any():
            noise = (labels * (1 - labels))[several] / (votes[several] - 1)
            report["mse_corrected"] = float((squared[several] - noise).mean())
    return report
