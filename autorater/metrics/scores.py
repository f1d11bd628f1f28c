"""The score of each single prediction p against a label y in [0, 1], the share of votes for B.

A score against a vote share is the mean of the scores against its votes, with a tie counted as half a vote each way:

    Brier      y (1 − p)² + (1 − y) p²  =  (p − y)² + y (1 − y)
    log loss   −y log p′ − (1 − y) log(1 − p′),   p′ = clip(p, 1e-3, 1 − 1e-3)

Both are linear in y, so the mean over a dense label equals the mean over its single votes. For a label of 0 or 1 they
are the ordinary scores. Lower is better. Brier (1950); Gneiting and Raftery (2007).
"""

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import logit

LOG_CLIP = 1e-3
"""Answers can be exactly 0 or 1, where the log loss is infinite. The log reward uses the same clip, so evaluation and
training use the same loss; a single prediction costs at most −log(1e-3) = 6.9 nats."""


def brier_scores(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Expected squared error against one vote drawn from the label, shape (N,)."""
    return squared_errors(probabilities, labels) + labels * (1 - labels)


def log_scores(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Expected negative log likelihood in nats of one vote drawn from the label, shape (N,)."""
    clipped = probabilities.clip(LOG_CLIP, 1 - LOG_CLIP)
    return -labels * np.log(clipped) - (1 - labels) * np.log1p(-clipped)


def squared_errors(probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Squared distance to the target probability, shape (N,)."""
    return (probabilities - targets) ** 2


def clipped_logit(probabilities: ArrayLike) -> np.ndarray:
    """Log-odds of p′, in float64 and of the same shape."""
    return logit(np.asarray(probabilities, dtype=np.float64).clip(LOG_CLIP, 1 - LOG_CLIP))
