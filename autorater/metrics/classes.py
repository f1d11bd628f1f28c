"""Metrics of distributions over K classes: NLI labels, Likert scales, A/tie/B.

The same questions as of a single probability. How far is each distribution from its votes (`distributions.py`)? Is
what is said with 0.7 true seven times in ten? That can be asked of every class (class-wise, Kull et al., arXiv
1910.12656) or of the likeliest alone (top-label, Guo et al., arXiv 1706.04599); the two are named apart. Votes are
compared as they are; only `ece_majority`, `accuracy` and `macro_f1` reduce them to their majority.

Few votes are noisy: even the true distribution is some way from their shares, and the entropy of shares is too low by
about (K − 1)/2m for m votes. Every metric therefore has a noise floor, its mean for a judge that says the distribution
from which the votes are drawn.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from autorater.metrics.agreement import macro_f1
from autorater.metrics.binning import bin_indices
from autorater.metrics.distributions import (
    class_brier_scores,
    divergences,
    entropy_errors,
    half_squares,
    log_losses,
    ranked_scores,
    total_variation,
    vote_variances,
)
from autorater.metrics.intervals import BinnedGap, Mean, Share, Statistic, bootstrap
from autorater.metrics.validation import DECIMALS, check_at_least, check_counts, check_distributions

_N_BINS = 10
_FLOOR_ROUNDS = 20


def class_metrics(
    predicted: ArrayLike,
    counts: ArrayLike,
    *,
    ordinal: bool = False,
    clusters: ArrayLike | None = None,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, float]:
    """Distributions over K classes against the votes for each, as JSON-ready floats; undefined metrics have no key.

    Args:
        predicted: shape (N, K), K >= 2, the predicted distributions; rows sum to 1.
        counts: shape (N, K), votes for each class, or their shares; no row may be all zero.
        ordinal: whether the classes have an order, that of the columns.
        clusters: shape (N,), items with equal values are resampled together.
        n_bootstrap: rounds of the bootstrap; 0 for no intervals.
        seed: seed of the bootstrap and of the noise floors.

    Returns:
        - `total_variation` (DistCE), `entropy_error` (EntCE, above 0: less decided than the votes) and its absolute
          `entropy_error_abs`, `kl`, `log_loss`, `brier`: means of what `distributions.py` defines;
        - `mse_dense`, mean ½ Σ (q − s)²; `mse_corrected`, the same less the noise of the votes, where counts are whole
          numbers, over the items with several votes: its mean is the distance to the true distribution;
        - `ranked_probability_score` if `ordinal`;
        - `ece_classwise`, the mean over classes of the ECE of that class's probability, and `ece_toplabel`, the ECE
          of the largest probability of each item against the share of votes for that class: ten bins of equal width,
          right-closed;
        - `ece_majority`, top-label against whether the majority is that class: Guo's, for comparison with published
          numbers; `accuracy`, how often it is; `macro_f1`, the mean F1 of the classes that are said or are a majority.
          Items whose votes have no single majority do not count; of several likeliest classes each has its part;
        - `<key>_low`, `<key>_high`, 95 % bootstrap, of all but `mse_corrected`, `ece_majority` and `macro_f1`;
        - `<key>_noise_floor`, where counts are whole numbers, of all but `mse_corrected`, `ece_majority`, `accuracy`
          and `macro_f1`: what a perfect judge with these answers would show on as many votes;
        - `n_items`, `n_classes`.

    Raises:
        ValueError: not (N, K), unequal shapes, NaN, negative numbers, predictions that do not sum to 1, no votes.

    Example:
        >>> class_metrics([[0.5, 0.25, 0.25]], [[3, 1, 0]], n_bootstrap=0)["total_variation"]
        0.25
    """
    predicted = check_distributions("predicted", predicted)
    counts = check_counts("counts", counts, predicted.shape)
    check_at_least("n_bootstrap", n_bootstrap, 0)
    votes = counts.sum(axis=1)
    shares = counts / votes[:, None]
    statistics = _statistics(predicted, shares, ordinal)
    values = {name: _value(statistic) for name, statistic in statistics.items()}
    report = {"n_items": float(len(predicted)), "n_classes": float(predicted.shape[1])} | values

    top = _likeliest(predicted)
    majority = _likeliest(shares)
    decided = (majority > 0).sum(axis=1) == 1
    hits = (top * majority).sum(axis=1)
    statistics["accuracy"] = Share(hits * decided, decided.astype(np.float64))
    if decided.any():
        report["accuracy"] = float(hits[decided].mean())
        report["macro_f1"] = macro_f1(top[decided], majority[decided])
        report["ece_majority"] = _value(_binned(predicted[decided].max(axis=1)[:, None], hits[decided, None]))
    if (counts == counts.round()).all():
        several = votes > 1
        if several.any():
            noise = vote_variances(shares[several]) / (votes[several] - 1)
            report["mse_corrected"] = float((half_squares(predicted, shares)[several] - noise).mean())
        report |= _noise_floors(predicted, votes, ordinal, seed)
    if n_bootstrap:
        report |= bootstrap(statistics, n_bootstrap, seed, clusters)
    return report


def _statistics(predicted: np.ndarray, shares: np.ndarray, ordinal: bool) -> dict[str, Statistic]:
    scores = {
        "total_variation": total_variation,
        "entropy_error": entropy_errors,
        "kl": divergences,
        "log_loss": log_losses,
        "brier": class_brier_scores,
        "mse_dense": half_squares,
    }
    if ordinal:
        scores["ranked_probability_score"] = ranked_scores
    statistics: dict[str, Statistic] = {name: Mean(score(predicted, shares)) for name, score in scores.items()}
    statistics["entropy_error_abs"] = Mean(np.abs(statistics["entropy_error"].values))
    statistics["ece_classwise"] = _binned(predicted, shares)
    voted_top = (_likeliest(predicted) * shares).sum(axis=1)
    statistics["ece_toplabel"] = _binned(predicted.max(axis=1)[:, None], voted_top[:, None])
    return statistics


def _binned(probabilities: np.ndarray, shares: np.ndarray) -> BinnedGap:
    """The mean over columns of the ECE of each, both arrays of shape (N, C)."""
    n_items, n_columns = probabilities.shape
    cells = bin_indices(probabilities.ravel(), _N_BINS, "uniform").reshape(probabilities.shape)
    cells = cells + _N_BINS * np.arange(n_columns)
    gaps = np.zeros((n_items, _N_BINS * n_columns))
    np.put_along_axis(gaps, cells, (shares - probabilities) / n_columns, axis=1)
    return BinnedGap(gaps)


def _value(statistic: Statistic) -> float:
    return float(statistic.evaluate(statistic.columns.sum(axis=0, keepdims=True))[0])


def _likeliest(distributions: np.ndarray) -> np.ndarray:
    """The part of each class in the likeliest of its row, shape (N, K): 1, or 1/n for each of n that are equal."""
    rounded = distributions.round(DECIMALS)
    largest = (rounded == rounded.max(axis=1, keepdims=True)).astype(np.float64)
    return largest / largest.sum(axis=1, keepdims=True)


def _noise_floors(predicted: np.ndarray, votes: np.ndarray, ordinal: bool, seed: int) -> dict[str, float]:
    generator = np.random.default_rng(seed)
    rounds = []
    for _ in range(_FLOOR_ROUNDS):
        shares = generator.multinomial(votes.astype(np.int64), predicted) / votes[:, None]
        rounds.append({name: _value(s) for name, s in _statistics(predicted, shares, ordinal).items()})
    return {f"{name}_noise_floor": float(np.mean([r[name] for r in rounds])) for name in rounds[0]}
