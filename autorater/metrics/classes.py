"""Metrics of predicted distributions q over K classes (NLI labels, Likert scales, A/tie/B) against vote shares s.

    total variation             ½ Σ_k |q_k − s_k|                      DistCE, Baan et al. (arXiv 2210.16133)
    entropy error               H(q) − H(s), in nats                   EntCE, Baan et al.
    log loss                    −Σ_k s_k log q′_k                      = KL(s ‖ q′) + H(s)
    Brier                       ½ Σ_k Σ_j s_j (q_k − 1[j = k])²        = ½ Σ_k (q_k − s_k)² + ½ (1 − Σ_k s_k²)
    ranked probability score    Σ_{k<K} E (Q_k − O_k)² / (K − 1)       Epstein (1969), Murphy (1971)

Q are the cumulated predictions, O is the cumulated vote, for ordered classes; q′ is q with every class clipped to
[1e-3, 1 − 1e-3], divided by its sum. Scores are means over votes, and for two classes those of `scores.py`.

Calibration is measured for every class (class-wise, Kull et al., arXiv 1910.12656) and for the likeliest class only
(top-label, Guo et al., arXiv 1706.04599). Noise floors are the means for a judge that predicts the distribution that
the votes are drawn from.
"""

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import entr

from autorater.metrics.agreement import macro_f1
from autorater.metrics.binning import N_BINS, bin_indices
from autorater.metrics.intervals import BinnedGap, Mean, Share, Statistic, bootstrap, point_estimate, point_estimates
from autorater.metrics.scores import LOG_CLIP, brier_scores
from autorater.metrics.validation import DECIMALS, check_at_least, check_class_counts, check_distributions

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
        ordinal: whether the columns are in the order of the classes.
        clusters: shape (N,), items with equal values are resampled together.
        n_bootstrap: rounds of the bootstrap; 0 for no intervals.
        seed: seed of the bootstrap and of the noise floors.

    Returns:
        - means over items of the scores above: `total_variation`, `entropy_error` (above 0: closer to uniform than the
          votes), `entropy_error_abs`, `kl`, `log_loss`, `brier` and, if `ordinal`, `ranked_probability_score`;
        - `mse_dense`, mean ½ Σ (q − s)²; `mse_corrected`, the same minus the variance of the votes, for whole-number
          counts, over the items with several votes: unbiased for the distance to the true distribution;
        - `ece_classwise`, the mean over classes of the ECE of that class; `ece_toplabel`, the ECE of the largest
          probability against the share of votes for that class: ten bins of equal width, right-closed;
        - `accuracy`, the share of items whose likeliest class is the majority; `macro_f1`; `ece_majority`, top-label
          ECE against the majority, for comparison with published numbers. Items without a single majority do not
          count; tied likeliest classes share their item equally;
        - `<key>_low`, `<key>_high`, 95 % bootstrap, of all but `mse_corrected`, `ece_majority` and `macro_f1`;
        - `<key>_noise_floor`, for whole-number counts, of all but these three and `accuracy`;
        - `n_items`, `n_classes`.

    Raises:
        ValueError: not (N, K), unequal shapes, NaN, negative numbers, predictions that do not sum to 1, no votes.

    Example:
        >>> class_metrics([[0.5, 0.25, 0.25]], [[3, 1, 0]], n_bootstrap=0)["total_variation"]
        0.25
    """
    predicted = check_distributions("predicted", predicted)
    counts = check_class_counts("counts", counts, predicted.shape)
    check_at_least("n_bootstrap", n_bootstrap, 0)
    votes = counts.sum(axis=1)
    shares = counts / votes[:, None]
    statistics = _statistics(predicted, shares, ordinal)
    report = {"n_items": float(len(predicted)), "n_classes": float(predicted.shape[1])}
    report |= point_estimates(statistics)

    top = _likeliest(predicted)
    majority = _likeliest(shares)
    decided = (majority > 0).sum(axis=1) == 1
    hits = (top * majority).sum(axis=1)
    statistics["accuracy"] = Share(hits * decided, decided.astype(np.float64))
    if decided.any():
        report["accuracy"] = float(hits[decided].mean())
        report["macro_f1"] = macro_f1(top[decided], majority[decided])
        report["ece_majority"] = point_estimate(_binned(predicted[decided].max(axis=1)[:, None], hits[decided, None]))
    if (counts == counts.round()).all():
        several = votes > 1
        if several.any():
            noise = _vote_variances(shares[several]) / (votes[several] - 1)
            report["mse_corrected"] = float((_half_squares(predicted, shares)[several] - noise).mean())
        report |= _noise_floors(predicted, votes, ordinal, seed)
    if n_bootstrap:
        report |= bootstrap(statistics, n_bootstrap, seed, clusters)
    return report


def _statistics(predicted: np.ndarray, shares: np.ndarray, ordinal: bool) -> dict[str, Statistic]:
    clipped = predicted.clip(LOG_CLIP, 1 - LOG_CLIP)
    log_losses = -(shares * np.log(clipped / clipped.sum(axis=1, keepdims=True))).sum(axis=1)
    half_squares, vote_entropy = _half_squares(predicted, shares), entr(shares).sum(axis=1)
    entropy_errors = entr(predicted).sum(axis=1) - vote_entropy
    scores = {
        "total_variation": np.abs(predicted - shares).sum(axis=1) / 2,
        "entropy_error": entropy_errors,
        "kl": log_losses - vote_entropy,
        "log_loss": log_losses,
        "brier": half_squares + _vote_variances(shares),
        "mse_dense": half_squares,
        "entropy_error_abs": np.abs(entropy_errors),
    }
    if ordinal:
        below, votes_below = predicted.cumsum(axis=1)[:, :-1], shares.cumsum(axis=1)[:, :-1]
        scores["ranked_probability_score"] = brier_scores(below, votes_below).mean(axis=1)
    statistics: dict[str, Statistic] = {name: Mean(score) for name, score in scores.items()}
    statistics["ece_classwise"] = _binned(predicted, shares)
    voted_top = (_likeliest(predicted) * shares).sum(axis=1)
    statistics["ece_toplabel"] = _binned(predicted.max(axis=1)[:, None], voted_top[:, None])
    return statistics


def _half_squares(predicted: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """½ Σ_k (q_k − s_k)², in [0, 1], shape (N,); for two classes (p − y)²."""
    return ((predicted - shares) ** 2).sum(axis=1) / 2


def _vote_variances(shares: np.ndarray) -> np.ndarray:
    """½ (1 − Σ_k s_k²), shape (N,): the variance of one vote; for two classes y (1 − y)."""
    return (1 - (shares**2).sum(axis=1)) / 2


def _binned(probabilities: np.ndarray, shares: np.ndarray) -> BinnedGap:
    """The mean over columns of the ECE of each, both arrays of shape (N, C)."""
    n_items, n_columns = probabilities.shape
    bins = bin_indices(probabilities.ravel(), N_BINS, "uniform").reshape(probabilities.shape)
    bins = bins + N_BINS * np.arange(n_columns)
    gaps = np.zeros((n_items, N_BINS * n_columns))
    np.put_along_axis(gaps, bins, (shares - probabilities) / n_columns, axis=1)
    return BinnedGap(gaps)


def _likeliest(distributions: np.ndarray) -> np.ndarray:
    """The likeliest class of each row, one-hot, shape (N, K); 1/n for each of n tied classes."""
    rounded = distributions.round(DECIMALS)
    largest = (rounded == rounded.max(axis=1, keepdims=True)).astype(np.float64)
    return largest / largest.sum(axis=1, keepdims=True)


def _noise_floors(predicted: np.ndarray, votes: np.ndarray, ordinal: bool, seed: int) -> dict[str, float]:
    generator = np.random.default_rng(seed)
    rounds = []
    for _ in range(_FLOOR_ROUNDS):
        shares = generator.multinomial(votes.astype(np.int64), predicted) / votes[:, None]
        rounds.append(point_estimates(_statistics(predicted, shares, ordinal)))
    return {f"{name}_noise_floor": float(np.mean([r[name] for r in rounds])) for name in rounds[0]}
