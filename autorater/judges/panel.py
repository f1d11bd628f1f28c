"""A panel: several judges as one, by a weighted sum of their logits, fitted on votes.

    s_j = (logit p_ab,j − logit p_ba,j) / 2          Pr[B better] by judge j as a logit, its position bias cancelled
    p   = σ(Σ_j w_j s_j),   w_j ≥ 0                  the same in both orders

The weights maximize the likelihood of the votes (logistic regression without an intercept), so that the panel is
calibrated as one: they sum to more than 1 where the judges are underconfident, to less where they are overconfident or
repeat each other. A ridge λ Σ (w_j − w̄)² / 2 on a mean log loss pulls them to each other, never to 0: with few votes
the panel is a recalibrated mean of logits. λ is chosen by the log loss of cross-validation in groups of pairs.

Deliberately left out: interactions of judges, weights by kind of pair. Source: logarithmic opinion pools, Genest and
Zidek 1986 (doi:10.1214/ss/1177013825).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize
from scipy.special import expit

from autorater.data.errors import UserError
from autorater.judges.calibrators import log_losses, odd_logits
from autorater.judges.judgments import Judgments
from autorater.metrics.validation import check_equal_lengths, check_probabilities

RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
_FOLDS = 5


@dataclass(frozen=True)
class Panel:
    """The weights of J judges.

    Attributes:
        weights: J numbers, 0 or more.
        ridge: The ridge that they were fitted with.
        names: Those of the judges, if they have any.
    """

    weights: tuple[float, ...]
    ridge: float = 0.0
    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"weights {', '.join(f'{weight:.2f}' for weight in self.weights)}"

    def combined(self, judgments: Sequence[Judgments]) -> Judgments:
        """The judgments of the panel from those of its judges about the same pairs, in the order of the weights."""
        return _pooled(expit(_symmetric_logits(judgments) @ np.array(self.weights)), judgments)


def fit_panel(
    judgments: Sequence[Judgments],
    labels: ArrayLike,
    groups: Sequence[Hashable] | None = None,
    *,
    ridge: float | None = None,
    seed: int = 0,
) -> Panel:
    """Fits the weights of J judges to the votes on N pairs, which none of the judges was fitted to.

    Args:
        judgments: Those of each judge, of N pairs.
        labels: shape (N,), share of votes for B, in [0, 1].
        groups: N values; pairs with equal ones are in one fold. By default every pair is a group of its own.
        ridge: λ above; None to choose one of `RIDGES` by cross-validation.
        seed: Seed of the folds.

    Raises:
        UserError: Fewer than two judges.
        ValueError: Labels of another length or outside [0, 1], or no pairs.
    """
    if len(judgments) < 2:
        raise UserError(f"a panel of {len(judgments)} judge; expected at least two")
    labels = check_probabilities("labels", labels)
    logits = _symmetric_logits(judgments)
    check_equal_lengths(judgments=logits[:, 0], labels=labels)
    if ridge is None:
        ridge = _best_ridge(logits, labels, groups, seed)
    return Panel(tuple(_fit(logits, labels, ridge).tolist()), ridge)


def mean_judgments(judgments: Sequence[Judgments]) -> Judgments:
    """The plain mean of J judges' probabilities, both orders averaged: a panel without votes."""
    return _pooled(np.mean([part.p_sym for part in judgments], axis=0), judgments)


def _pooled(p: np.ndarray, judgments: Sequence[Judgments]) -> Judgments:
    return Judgments.mirrored(p, valid=np.mean([part.valid.mean(axis=1) for part in judgments], axis=0))


def _symmetric_logits(judgments: Sequence[Judgments]) -> np.ndarray:
    """Shape (N, J)."""
    return np.stack([odd_logits(part.p_ab, part.p_ba) for part in judgments], axis=1)


def _fit(logits: np.ndarray, labels: np.ndarray, ridge: float) -> np.ndarray:
    """The weights, shape (J,): the minimum of a convex loss."""

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        scores, apart = logits @ weights, weights - weights.mean()
        value = log_losses(scores, labels).mean()
        gradient = (expit(scores) - labels) @ logits / len(labels)
        return value + ridge / 2 * (apart**2).sum(), gradient + ridge * apart

    start = np.full(logits.shape[1], 1 / logits.shape[1])
    options = {"ftol": 1e-14, "gtol": 1e-9, "maxiter": 1000}
    return minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0, 50)] * len(start), options=options).x


def _best_ridge(logits: np.ndarray, labels: np.ndarray, groups: Sequence[Hashable] | None, seed: int) -> float:
    """The ridge with the lowest log loss of cross-validation; the largest if there is a single group."""
    names = {name: i for i, name in enumerate(dict.fromkeys(range(len(labels)) if groups is None else groups))}
    members = np.arange(len(labels)) if groups is None else np.array([names[name] for name in groups])
    if len(names) < 2:
        return max(RIDGES)
    fold_of = np.random.default_rng(seed).permutation(len(names)) % min(_FOLDS, len(names))
    folds = fold_of[members]
    losses = []
    for ridge in RIDGES:
        scores = np.empty(len(labels))
        for fold in np.unique(folds):
            here = folds == fold
            scores[here] = logits[here] @ _fit(logits[~here], labels[~here], ridge)
        losses.append(log_losses(scores, labels).mean())
    return RIDGES[int(np.argmin(losses))]
