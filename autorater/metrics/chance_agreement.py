"""Agreement corrected for chance: Cohen's κ of the judge with the majority, Krippendorff's α among annotators.

    κ = (p_o − p_e) / (1 − p_e)  p_o the share of equal verdicts (A, tie, B), p_e that of independent ones of the same
                                 frequencies; Cohen (1960)
    α = 1 − D_o / D_e            D_o the mean squared difference of two votes on one pair, D_e that of any two votes,
                                 with A = 0, tie = 1/2, B = 1; Krippendorff (2011), interval metric

Both are 1 for perfect agreement and 0 for chance. α needs pairs with two votes or more. With the judge as one more
annotator of every pair, α says whether it fits among them: it rises if the judge agrees with people better than they
agree with each other. κ of a tie counts a difference as large as that between A and B.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from autorater.metrics.agreement import three_verdicts
from autorater.metrics.intervals import percentile_interval
from autorater.metrics.validation import check_predictions, reject

VALUES = np.array([0.0, 0.5, 1.0])
"""Votes as numbers: for A, for neither, for B."""


@dataclass(frozen=True)
class Kappa:
    """Cohen's κ as a statistic of `bootstrap`.

    N pairs are rated in M presentations, as M N items: `probabilities` and `labels` have the shape (M, N). Pairs of
    weight 0, shape (N,), do not count.
    """

    probabilities: np.ndarray
    labels: np.ndarray
    weights: np.ndarray

    @property
    def columns(self) -> np.ndarray:
        """One row per pair, shape (N, 8): frequencies of both raters, equal verdicts, the weight."""
        predicted, truth = map(three_verdicts, (self.probabilities, self.labels))
        equal = (predicted * truth).sum(axis=2, keepdims=True)
        parts = (predicted, truth, equal, np.ones_like(equal))
        return np.concatenate(parts, axis=2).mean(axis=0) * self.weights[:, None]

    def evaluate(self, sums: np.ndarray) -> np.ndarray:
        """Column sums of shape (R, 8) to values of shape (R,); NaN if all verdicts are the same or no pair counts."""
        totals = sums[:, 7:]
        shares = np.divide(sums[:, :7], totals, out=np.full((len(sums), 7), np.nan), where=totals > 0)
        chance = (shares[:, :3] * shares[:, 3:6]).sum(axis=1)
        return np.divide(shares[:, 6] - chance, 1 - chance, out=np.full(len(sums), np.nan), where=chance < 1 - 1e-12)

    def interval(self, units: np.ndarray, sums: np.ndarray) -> tuple[float, float] | None:
        return percentile_interval(self.evaluate(sums), len(units))


@dataclass(frozen=True)
class Alpha:
    """Krippendorff's α as a statistic of `bootstrap`; counts of votes for A, tie and B, shape (N, 3)."""

    counts: np.ndarray

    @property
    def columns(self) -> np.ndarray:
        """One row per pair, shape (N, 4): its observed disagreement and its counts; 0 with fewer than two votes."""
        several = self.counts.sum(axis=1) > 1
        return np.concatenate([_disagreement(self.counts)[:, None], self.counts], axis=1) * several[:, None]

    def evaluate(self, sums: np.ndarray) -> np.ndarray:
        """Column sums of shape (R, 4) to values of shape (R,); NaN if all votes are the same."""
        expected = _disagreement(sums[:, 1:])
        ratio = np.divide(sums[:, 0], expected, out=np.full(len(sums), np.nan), where=expected > 1e-12)
        return 1 - ratio

    def interval(self, units: np.ndarray, sums: np.ndarray) -> tuple[float, float] | None:
        return percentile_interval(self.evaluate(sums), np.count_nonzero(units[:, 1:].any(axis=1)))


def _disagreement(counts: np.ndarray) -> np.ndarray:
    """Mean squared difference of a vote from the others, times the votes; shape (N,), from counts of shape (N, 3)."""
    n_votes = counts.sum(axis=1)
    spread = counts @ VALUES**2 - (counts @ VALUES) ** 2 / np.maximum(n_votes, 1)
    return 2 * n_votes * spread / np.maximum(n_votes - 1, 1)


def cohen_kappa(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Cohen's κ of the judge's verdicts with those of the majority, in [−1, 1]; NaN if all are the same.

    Args and errors as in `three_way_agreement`, whose three verdicts and tie band are used.
    """
    probabilities, labels = check_predictions(probabilities, labels)
    kappa = Kappa(probabilities[None], labels[None], np.ones(labels.size))
    return float(kappa.evaluate(kappa.columns.sum(axis=0, keepdims=True))[0])


def krippendorff_alpha(counts: ArrayLike) -> float:
    """Krippendorff's α of votes, at most 1; NaN if all votes are the same or no pair has two.

    Args:
        counts: shape (N, 3), votes for A, for neither and for B, at least 0. Pairs with fewer than two do not count.

    Raises:
        ValueError: another shape, NaN, counts below 0.
    """
    counts = np.asarray(counts, dtype=np.float64)
    if counts.ndim != 2 or counts.shape[1] != 3:
        raise ValueError(f"counts have shape {counts.shape}; expected (N, 3): votes for A, tie and B")
    reject("counts", counts, ~(np.isfinite(counts) & (counts >= 0)), "a number of votes, at least 0")
    alpha = Alpha(counts)
    return float(alpha.evaluate(alpha.columns.sum(axis=0, keepdims=True))[0])


def annotator_statistics(counts: np.ndarray, probabilities: np.ndarray) -> dict[str, Alpha]:
    """`alpha_annotators`, and `alpha_with_judge`: with the judge's verdict as one more vote on the same pairs.

    Args:
        counts: shape (N, 3) as in `krippendorff_alpha`.
        probabilities: shape (N,), Pr[B preferred], both orders averaged.

    Returns:
        Empty if no pair has two votes.
    """
    several = counts.sum(axis=1) > 1
    if not several.any():
        return {}
    with_judge = (counts + three_verdicts(probabilities)) * several[:, None]
    return {"alpha_annotators": Alpha(counts), "alpha_with_judge": Alpha(with_judge)}
