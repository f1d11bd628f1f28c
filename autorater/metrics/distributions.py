"""The score of each single predicted distribution q over K classes against the shares s of its votes.

    total variation             ½ Σ_k |q_k − s_k|                      DistCE, Baan et al. (arXiv 2210.16133)
    entropy error               H(q) − H(s), in nats                   EntCE, the same
    log loss                    −Σ_k s_k log q′_k                      = KL(s ‖ q′) + H(s)
    Brier                       ½ Σ_k Σ_j s_j (q_k − 1[j = k])²        = ½ Σ_k (q_k − s_k)² + ½ (1 − Σ_k s_k²)
    ranked probability score    Σ_{k<K} E (Q_k − O_k)² / (K − 1)       Epstein (1969), Murphy (1971)

Q are the cumulated predictions, O the cumulated vote, which is 0 or 1: it reaches 1 at its class. Scores against a
share are means over its votes, as in `scores.py`; for two classes the Brier score, the ranked probability score and
the log loss are those given there. q′ is q with every class between 1e-3 and 1 − 1e-3, divided by its sum.

The ranked probability score is for classes with an order (1–5, A/tie/B): a neighbouring class is half forgiven.
"""

from __future__ import annotations

import numpy as np

from autorater.metrics.scores import LOG_CLIP, brier_scores


def total_variation(predicted: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """In [0, 1], shape (N,)."""
    return np.abs(predicted - shares).sum(axis=1) / 2


def entropies(distributions: np.ndarray) -> np.ndarray:
    """Entropy of each row in nats, in [0, log K], shape (N,)."""
    logs = np.log(distributions, out=np.zeros_like(distributions), where=distributions > 0)
    return -(distributions * logs).sum(axis=1)


def entropy_errors(predicted: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Entropy of the prediction less that of the votes, shape (N,); above 0, the prediction is the less decided."""
    return entropies(predicted) - entropies(shares)


def log_losses(predicted: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Expected negative log likelihood in nats of one vote drawn from the shares, shape (N,)."""
    clipped = predicted.clip(LOG_CLIP, 1 - LOG_CLIP)
    return -(shares * np.log(clipped / clipped.sum(axis=1, keepdims=True))).sum(axis=1)


def divergences(predicted: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """KL(shares ‖ prediction) in nats, at least 0, shape (N,)."""
    return log_losses(predicted, shares) - entropies(shares)


def half_squares(predicted: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """½ Σ_k (q_k − s_k)², in [0, 1], shape (N,); for two classes (p − y)²."""
    return ((predicted - shares) ** 2).sum(axis=1) / 2


def vote_variances(shares: np.ndarray) -> np.ndarray:
    """½ (1 − Σ_k s_k²), shape (N,): what one vote varies about the shares; for two classes y (1 − y)."""
    return (1 - (shares**2).sum(axis=1)) / 2


def class_brier_scores(predicted: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Half the expected squared distance to one vote drawn from the shares, in [0, 1], shape (N,)."""
    return half_squares(predicted, shares) + vote_variances(shares)


def ranked_scores(predicted: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Ranked probability score of classes in their order, in [0, 1], shape (N,)."""
    below, votes_below = predicted.cumsum(axis=1)[:, :-1], shares.cumsum(axis=1)[:, :-1]
    return brier_scores(below, votes_below).mean(axis=1)
