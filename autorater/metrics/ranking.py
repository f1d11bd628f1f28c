"""Ranking of several systems from many judged pairs and few human votes: Bradley–Terry strengths with intervals.

    Pr[b beats a] = σ(s_b − s_a),   Σ s = 0,   a tie counts half a win for each

The votes' score equation is corrected by the judge's, as PPI++ does for generalized linear models (arXiv 2311.01453).
With x = +1 for the system of response B and −1 for that of A, the strengths solve

    mean over voted of x (y − σ) + λ (mean over judged of x (f − σ) − mean over voted of x (f − σ)) = 0,  σ = σ(x s)

λ in [0, 1] minimizes the trace of the covariance. The covariance is H⁻¹ (Σ_c g_c g_cᵀ) H⁻¹, with the terms of the
equation summed by cluster; intervals use Student's t with the clusters of the votes, less the free strengths.
The judge's errors cancel in expectation, so a judge that favours one system does not favour it here.

A rank interval counts the systems that are better, or worse, by the interval of the difference; these are simultaneous
over all differences (Bonferroni).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit, stdtrit

from autorater.metrics.validation import check_equal_lengths, check_probabilities, check_share
from autorater.metrics.win_rate import cluster_members

_TOLERANCE = 1e-9
_MAX_STEPS = 100
_MAX_STRENGTH = 15.0  # logits: a system that always wins


@dataclass(frozen=True)
class RankedSystem:
    """One system of a ranking.

    Attributes:
        system: Its name.
        rank, rank_low, rank_high: Its rank, 1 for the strongest, and the ranks that the votes allow.
        strength, low, high: Bradley–Terry strength in logits, relative to the mean of all systems, and its interval.
        win_rate: Mean over the other systems of the modelled probability to win against them.
    """

    system: str
    rank: int
    rank_low: int
    rank_high: int
    strength: float
    low: float
    high: float
    win_rate: float


def rank_systems(
    judged: ArrayLike,
    votes: ArrayLike,
    system_a: Sequence[str],
    system_b: Sequence[str],
    *,
    clusters: ArrayLike | None = None,
    confidence: float = 0.95,
) -> list[RankedSystem]:
    """Ranks systems by people's votes on some of their pairs and a judge's probabilities for all.

    Args:
        judged: shape (N,), Pr[B preferred] by the judge, in [0, 1].
        votes: shape (N,), votes: 1 for B, 0 for A, 0.5 a tie, or a mean of several; NaN for pairs without votes. Pairs
            with votes must be a random sample.
        system_a, system_b: N names of the systems that wrote the responses; a system against itself is left out.
        clusters: shape (N,), dependent pairs, such as those of one prompt, have equal values.
        confidence: Coverage of the intervals, in (0, 1).

    Returns:
        The systems, the strongest first.

    Raises:
        ValueError: unequal lengths, values outside their range, votes of fewer than two clusters, or no finite
            strengths fit: a system won or lost everything, or was never compared with the others.
    """
    judged = check_probabilities("judged", judged)
    votes = np.asarray(votes, dtype=np.float64)
    names = np.array([*system_a, *system_b], dtype=object).astype(str)
    if names.size != 2 * judged.size or len(system_a) != judged.size:
        raise ValueError(f"{len(system_a)} and {len(system_b)} systems for {judged.size} pairs; expected one a pair")
    members = cluster_members(clusters, judged.size, 0)
    check_equal_lengths(judged=judged, votes=votes)
    check_share("confidence", confidence)
    voted = ~np.isnan(votes)
    different = names[: judged.size] != names[judged.size :]
    if not (different & voted).any():
        raise ValueError("no vote on a pair of two different systems; expected at least one")
    check_probabilities("votes", votes[voted])
    systems, index = np.unique(names.reshape(2, -1)[:, different], return_inverse=True)
    one_hot = np.eye(systems.size)
    first, second = index.reshape(2, -1)
    design = one_hot[second] - one_hot[first]
    strengths, covariance = _fit(design, judged[different], votes[different], members[different], systems)

    k = systems.size
    freedom = max(1, np.unique(members[different & voted]).size - k + 1)
    variances = np.diag(covariance)
    half = stdtrit(freedom, (1 + confidence) / 2) * np.sqrt(variances)
    errors = np.sqrt(np.maximum(0, variances[:, None] + variances - 2 * covariance))
    difference = strengths[:, None] - strengths
    clear = difference > stdtrit(freedom, 1 - (1 - confidence) / (k * (k - 1))) * errors  # [i, j]: i is better than j
    win_rates = (expit(difference).sum(axis=1) - 0.5) / max(1, k - 1)
    order = np.argsort(-strengths, kind="stable")
    return [
        RankedSystem(
            system=str(systems[i]),
            rank=rank,
            rank_low=1 + int(clear[:, i].sum()),
            rank_high=k - int(clear[i].sum()),
            strength=float(strengths[i]),
            low=float(strengths[i] - half[i]),
            high=float(strengths[i] + half[i]),
            win_rate=float(win_rates[i]),
        )
        for rank, i in enumerate(order, start=1)
    ]


def _fit(
    design: np.ndarray, judged: np.ndarray, votes: np.ndarray, members: np.ndarray, systems: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Strengths, shape (K,), and their covariance, shape (K, K)."""
    voted = ~np.isnan(votes)
    labels = np.where(voted, votes, judged)
    of_votes = voted / voted.sum()
    of_judge = (~voted) / max(1, (~voted).sum()) - of_votes  # weights of the mean over judged minus that over voted

    def terms_of(strengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Terms of the votes and of the judge, centred in each sample and summed by cluster."""
        fitted = expit(design @ strengths)
        votes_terms, judge_terms = design * (labels - fitted)[:, None], design * (judged - fitted)[:, None]
        for sample in (voted, ~voted):
            if sample.any():
                votes_terms[sample] -= votes_terms[sample].mean(axis=0)
                judge_terms[sample] -= judge_terms[sample].mean(axis=0)
        return _summed(votes_terms * of_votes[:, None], members), _summed(judge_terms * of_judge[:, None], members)

    def solve(weights: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Newton's method; strengths and the inverse of the Hessian, both orthogonal to a shift of all strengths."""
        strengths = np.zeros(design.shape[1])
        for _ in range(_MAX_STEPS):
            fitted = expit(design @ strengths)
            hessian = design.T @ (design * (weights * fitted * (1 - fitted))[:, None])
            inverse = np.linalg.pinv(hessian, rcond=1e-10, hermitian=True)
            step = inverse @ (target - design.T @ (weights * fitted))
            strengths = strengths + step / max(1.0, np.abs(step).max())  # at most one logit a step
            if np.abs(strengths).max() > _MAX_STRENGTH or np.linalg.matrix_rank(hessian, 1e-12) < strengths.size - 1:
                break
            if np.abs(step).max() < _TOLERANCE:
                return strengths, inverse
        extremes = systems[[strengths.argmax(), strengths.argmin()]]
        raise ValueError(
            f"no finite strengths fit, from {str(extremes[0])!r} to {str(extremes[1])!r}: some systems won or lost "
            "every vote or were never compared with the others; expected more votes or fewer systems"
        )

    uniform = np.full(votes.size, 1 / votes.size)
    pilot, inverse = solve(uniform, design.T @ (uniform * labels))
    weight = 0.0
    if not voted.all():
        a, b = terms_of(pilot)
        a, b = a @ inverse, b @ inverse
        weight = float(np.clip(-(a * b).sum() / max((b**2).sum(), 1e-300), 0, 1))
    target = design.T @ (of_votes * labels + weight * of_judge * judged)
    strengths, inverse = solve(of_votes + weight * of_judge, target)
    a, b = terms_of(strengths)
    influence = (a + weight * b) @ inverse
    n_clusters = np.unique(members[voted]).size
    if n_clusters < 2:
        raise ValueError("all votes are of a single cluster; expected at least two for intervals")
    return strengths, influence.T @ influence * n_clusters / (n_clusters - 1)


def _summed(terms: np.ndarray, members: np.ndarray) -> np.ndarray:
    return np.stack([np.bincount(members, column) for column in terms.T], axis=1)
