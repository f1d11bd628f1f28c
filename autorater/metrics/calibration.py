"""Calibration of probabilities against votes.

A label is the share of votes for B, so 0/1 labels, ties (1/2) and dense labels go through the same formulas:

    ECE           Σ_b n_b/N · |ȳ_b − p̄_b|                               Guo et al. (arXiv 1706.04599)
    debiased L2   sqrt max(0, Σ_b n_b/N · [(ȳ_b − p̄_b)² − s_b²/n_b])    Kumar et al. (arXiv 1909.10155)
    Murphy        Brier = reliability − resolution + uncertainty        Murphy (1973)

s_b² is the sample variance of the labels of bin b; for 0/1 labels s_b²/n_b is Kumar's ȳ_b (1 − ȳ_b)/(n_b − 1).

The decomposition is exact here, not approximate: its bins are the distinct answers, and the Brier score against a vote
share is the mean over the votes (`scores.py`), so that each bin contributes (p − ȳ_b)² + ȳ_b (1 − ȳ_b).

Plug-in ECE is biased upward, by more the fewer the votes; `noise.py` says how much a perfect judge would show.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from autorater.metrics.agreement import verdicts
from autorater.metrics.binning import Strategy, bin_indices
from autorater.metrics.scores import brier_scores, log_scores, squared_errors
from autorater.metrics.smoothing import smooth_error
from autorater.metrics.validation import DECIMALS, check_equal_lengths, check_probabilities, check_votes

_N_BINS = 10


def _check(probabilities: ArrayLike, labels: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    probabilities = check_probabilities("probabilities", probabilities)
    labels = check_probabilities("labels", labels)
    check_equal_lengths(probabilities=probabilities, labels=labels)
    return probabilities, labels


def _curve(probabilities: np.ndarray, labels: np.ndarray, n_bins: int, strategy: Strategy) -> dict[str, np.ndarray]:
    bins = bin_indices(probabilities, n_bins, strategy)
    count = np.bincount(bins)
    filled = count > 0
    count = count[filled]
    return {
        "probability": np.bincount(bins, probabilities)[filled] / count,
        "label": np.bincount(bins, labels)[filled] / count,
        "count": count,
    }


def _weighted_gap(curve: dict[str, np.ndarray]) -> float:
    return float(np.average(np.abs(curve["label"] - curve["probability"]), weights=curve["count"]))


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
    return _curve(*_check(probabilities, labels), n_bins, strategy)


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
    return _weighted_gap(reliability_curve(probabilities, labels, n_bins, strategy))


def _debiased_error(probabilities: np.ndarray, labels: np.ndarray) -> float | None:
    bins = bin_indices(probabilities, _N_BINS, "quantile")
    count = np.bincount(bins)
    usable = count > 1  # one row says nothing about the noise of its own mean
    if not usable.any():
        return None
    mean = np.bincount(bins, labels) / np.maximum(count, 1)
    spread = np.bincount(bins, (labels - mean[bins]) ** 2)[usable]
    gap = np.bincount(bins, labels - probabilities)[usable]
    count = count[usable]
    squared = (gap / count) ** 2 - spread / (count * (count - 1))
    return float(np.sqrt(max(0.0, np.average(squared, weights=count))))


def _decomposition(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    curve = _curve(probabilities, labels, _N_BINS, "distinct")
    base_rate = labels.mean()
    return {
        "reliability": float(np.average((curve["probability"] - curve["label"]) ** 2, weights=curve["count"])),
        "resolution": float(np.average((curve["label"] - base_rate) ** 2, weights=curve["count"])),
        "uncertainty": float(base_rate * (1 - base_rate)),
    }


def calibration_metrics(
    probabilities: ArrayLike, labels: ArrayLike, n_votes: ArrayLike | None = None
) -> dict[str, float]:
    """Proper scores and calibration errors of probabilities against votes.

    Args:
        probabilities: shape (N,), Pr[B preferred], in [0, 1].
        labels: shape (N,), share of votes for B, in [0, 1]; a tie vote counts one half.
        n_votes: number of votes behind each label, one number or shape (N,); used by `mse_corrected` alone.

    Returns:
        - `brier`, `log_loss`: mean score against every vote, as defined in `scores.py`; lower is better.
        - `mse_dense`: mean (p − y)², the squared distance to the vote share.
        - `mse_corrected`: mean of (p − y)² − y (1 − y)/(m − 1) over the rows with m >= 2 votes. For votes without ties
          it estimates E(p − p*)² without bias (and may fall below 0); ties make it too low, for y (1 − y) then
          overstates the spread of the votes. Left out without such rows.
        - `ece`, `ece_quantile`: ten bins of equal width or of equal mass.
        - `ece_debiased`: debiased L2 error on the bins of `ece_quantile`; bins of one row are passed over, and the
          key is left out if there are no others.
        - `smooth_ece`: bin-free, Błasiok and Nakkiran (arXiv 2309.12236).
        - `ece_majority`: `ece` against the majority of each label, split labels dropped. Kept for comparison with
          published numbers: by it the true p* looks worse than a majority voter. Left out if all labels are split.
        - `reliability`, `resolution`, `uncertainty`: brier = reliability − resolution + uncertainty, exactly.
        - `sharpness`: variance of p.
        - `distinct_answers`: number of distinct p, to nine decimals.

    Raises:
        ValueError: empty input, unequal lengths, NaN, values outside [0, 1], n_votes not whole or below 1.
    """
    probabilities, labels = _check(probabilities, labels)
    squared = squared_errors(probabilities, labels)
    report = {
        "brier": float(brier_scores(probabilities, labels).mean()),
        "log_loss": float(log_scores(probabilities, labels).mean()),
        "mse_dense": float(squared.mean()),
        "ece": _weighted_gap(_curve(probabilities, labels, _N_BINS, "uniform")),
        "ece_quantile": _weighted_gap(_curve(probabilities, labels, _N_BINS, "quantile")),
        "smooth_ece": smooth_error(probabilities, labels),
        **_decomposition(probabilities, labels),
        "sharpness": float(probabilities.var()),
        "distinct_answers": float(np.unique(probabilities.round(DECIMALS)).size),
    }
    debiased = _debiased_error(probabilities, labels)
    if debiased is not None:
        report["ece_debiased"] = debiased
    majority = verdicts(labels)
    decided = majority != 0
    if decided.any():
        winners = (1 + majority[decided]) / 2
        report["ece_majority"] = _weighted_gap(_curve(probabilities[decided], winners, _N_BINS, "uniform"))
    if n_votes is not None:
        votes = check_votes("n_votes", n_votes, labels.size)
        several = votes > 1
        if several.any():
            noise = (labels * (1 - labels))[several] / (votes[several] - 1)
            report["mse_corrected"] = float((squared[several] - noise).mean())
    return report
