"""Scoring rules S(p, y) of an answer p and a label y, both in [0, 1]. Higher is better.

    brier                1 − (p − y)²                                       Brier 1950
    logarithmic          y log p′ + (1−y) log(1−p′)                         Good 1952
    spherical            (y p + (1−y)(1−p)) / √(p² + (1−p)²)                Roby 1965
    kullback_leibler     −KL(Bern(y) ‖ Bern(p′))                            Kullback & Leibler 1951
    ranked_probability   1 − Σ_m (F_m − O_m)² / (K−1)                       Epstein 1969, Murphy 1971

with p′ = clip(p, ε, 1−ε), which bounds the loss of a confident error; ε in (0, 0.5). Each is strictly proper (Gneiting
& Raftery 2007): for votes drawn with probability p*, the expected score has its unique maximum at p = p*; with
clipping, for p* inside [ε, 1−ε]. A vote share can replace its votes: its score is the mean of theirs, up to a term
that does not depend on the answer.

All functions broadcast, so that a grid of answers against a batch of labels is one call. They do not check arguments;
``rewards.functions`` checks labels. Deliberately left out: normalization by the deviation of a group of scores, which
would turn each of these rules into majority voting (arXiv 2508.11800).
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def brier(p: ArrayLike, y: ArrayLike) -> NDArray[np.float64]:
    """Brier score turned to a reward, 1 − (p − y)², in [0, 1].

    Source: G. W. Brier, "Verification of forecasts expressed in terms of probability", Mon. Weather Rev. 78, 1950.

    Example:
        >>> brier([0.0, 0.5, 1.0], 1)
        array([0.  , 0.75, 1.  ])
    """
    return 1.0 - np.square(np.subtract(p, y, dtype=np.float64))


def logarithmic(p: ArrayLike, y: ArrayLike, epsilon: float = 1e-3) -> NDArray[np.float64]:
    """Logarithmic score y log p′ + (1 − y) log(1 − p′), in nats, in [log ε, log(1 − ε)].

    Source: I. J. Good, "Rational decisions", J. R. Stat. Soc. B 14, 1952.
    """
    p, y = np.asarray(p, dtype=np.float64), np.asarray(y, dtype=np.float64)
    return y * _clipped_log(p, epsilon) + (1.0 - y) * _clipped_log(1.0 - p, epsilon)


def spherical(p: ArrayLike, y: ArrayLike) -> NDArray[np.float64]:
    """Spherical score (y p + (1 − y)(1 − p)) / √(p² + (1 − p)²), in [0, 1].

    Source: T. B. Roby, "Belief states and the uses of evidence", Behavioral Science 10, 1965.
    """
    p, y = np.asarray(p, dtype=np.float64), np.asarray(y, dtype=np.float64)
    return (y * p + (1.0 - y) * (1.0 - p)) / np.hypot(p, 1.0 - p)


def kullback_leibler(p: ArrayLike, y: ArrayLike, epsilon: float = 1e-3) -> NDArray[np.float64]:
    """Negated divergence −KL(Bern(y) ‖ Bern(p′)) = y log(p′/y) + (1−y) log((1−p′)/(1−y)), in nats, in [log ε, 0].

    The logarithmic score plus the entropy of the label: the same preferences, with 0 for the answer p = y, so that
    dense labels of unlike certainty are on one scale.

    Source: S. Kullback and R. A. Leibler, "On information and sufficiency", Ann. Math. Stat. 22, 1951.
    """
    y = np.asarray(y, dtype=np.float64)
    negated = logarithmic(p, y, epsilon) + _entropy_term(y) + _entropy_term(1.0 - y)
    return np.minimum(negated, 0.0)  # at p = y the terms cancel only up to rounding


def ranked_probability(distribution: ArrayLike, label: ArrayLike) -> NDArray[np.float64]:
    """Ranked probability score turned to a reward, 1 − Σ_m (F_m − O_m)² / (K − 1), in [0, 1].

    F and O are the cumulative sums of the answered and the observed distribution over K ordered classes: a forecast
    that misses by one class loses less than one that misses by two. With K = 2 this is the Brier score.

    Args:
        distribution: Answers, shape (…, K), each summing to 1.
        label: The observed class as one integer in [0, K), or observed distributions or vote counts, shape (…, K),
            not negative and not all 0. For a batch of classes, see :func:`class_indicator`.

    Source: E. S. Epstein, "A scoring system for probability forecasts of ranked categories", J. Appl. Meteorol. 8,
        1969; A. H. Murphy, "A note on the ranked probability score", J. Appl. Meteorol. 10, 1971.

    Example:
        >>> float(ranked_probability([0.0, 0.5, 0.5], 2))
        0.875
    """
    forecast = np.cumsum(np.asarray(distribution, dtype=np.float64), axis=-1)
    n_classes = forecast.shape[-1]
    observed = class_indicator(label, n_classes) if np.ndim(label) == 0 else np.asarray(label, dtype=np.float64)
    observed = np.cumsum(observed / observed.sum(axis=-1, keepdims=True), axis=-1)
    misses = np.square(forecast - observed)[..., :-1]  # the last entry is 1 − 1 up to rounding
    return np.maximum(1.0 - misses.sum(axis=-1) / (n_classes - 1), 0.0)


def class_indicator(label: ArrayLike, n_classes: int) -> NDArray[np.float64]:
    """Distributions (…, K) with all mass on the given integer classes in [0, K), of any shape."""
    return np.eye(n_classes)[np.asarray(label)]


def _clipped_log(p: NDArray[np.float64], epsilon: float) -> NDArray[np.float64]:
    return np.log(np.clip(p, epsilon, 1.0 - epsilon))


def _entropy_term(y: NDArray[np.float64]) -> NDArray[np.float64]:
    return -y * np.log(np.where(y > 0, y, 1.0))  # −y log y, 0 at y = 0
