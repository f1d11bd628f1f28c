"""Bootstrap intervals for metrics that are functions of sums over pairs.

A resample draws N pairs with replacement, or whole clusters where pairs hang together (one prompt, one annotator).
Every metric here is a function of column sums, so one resample is one vector of counts, a chunk of resamples is one
matrix product, and all metrics share the same resamples. Memory is bounded whatever the number of rounds.

Means and ratios get the percentile interval. A calibration error cannot: it is a sum of absolute values, resampling
adds noise that does not cancel, and its percentile interval lies too high, often above the estimate itself. It gets
the reflected ("basic") interval [2e − q_high, 2e − q_low], Davison and Hinkley (1997), section 5.2, cut at zero and
widened to contain the estimate e. With 1,000 pairs of one vote and ten bins, it covers the true ECE of a perfect judge
in 81 % of experiments and of an overconfident one (ECE 0.13) in 92 %; the percentile interval in 0 % and 95 %.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

from autorater.metrics.validation import check_at_least, check_equal_lengths

_CHUNK = 1 << 22  # counts held at once: 32 MB


class Statistic(Protocol):
    """A metric as a function of the column sums of an array with one row per pair."""

    @property
    def columns(self) -> np.ndarray:
        """Shape (N, S)."""

    def evaluate(self, sums: np.ndarray) -> np.ndarray:
        """Column sums of shape (R, S) to values of shape (R,); NaN where undefined."""

    def interval(self, estimate: float, low: float, high: float) -> tuple[float, float]:
        """The interval, from the estimate and the two quantiles of the resampled values."""


@dataclass(frozen=True)
class Mean:
    """Σ values / Σ weights, both of shape (N,). Weights may be 0 where a pair does not count."""

    values: np.ndarray
    weights: np.ndarray | None = None

    @property
    def columns(self) -> np.ndarray:
        weights = np.ones(len(self.values)) if self.weights is None else self.weights
        return np.stack([self.values, weights], axis=1)

    def evaluate(self, sums: np.ndarray) -> np.ndarray:
        total, weight = sums.T
        return np.divide(total, weight, out=np.full(len(sums), np.nan), where=weight > 0)

    def interval(self, estimate: float, low: float, high: float) -> tuple[float, float]:
        return low, high


@dataclass(frozen=True)
class BinnedGap:
    """Σ_b |Σ_i gaps_ib| / N: a calibration error; gaps of shape (N, K) hold the residuals of pair i in bin b."""

    gaps: np.ndarray

    @property
    def columns(self) -> np.ndarray:
        return np.concatenate([self.gaps, np.ones((len(self.gaps), 1))], axis=1)

    def evaluate(self, sums: np.ndarray) -> np.ndarray:
        return np.abs(sums[:, :-1]).sum(axis=1) / sums[:, -1]

    def interval(self, estimate: float, low: float, high: float) -> tuple[float, float]:
        return max(0.0, min(estimate, 2 * estimate - high)), max(estimate, 2 * estimate - low)


def _resampled_sums(columns: np.ndarray, n_rounds: int, seed: int) -> np.ndarray:
    n_units = len(columns)
    generator = np.random.default_rng(seed)
    sums = np.empty((n_rounds, columns.shape[1]))
    step = max(1, _CHUNK // n_units)
    for start in range(0, n_rounds, step):
        rounds = min(step, n_rounds - start)
        draws = generator.integers(n_units, size=(rounds, n_units))
        draws += n_units * np.arange(rounds)[:, None]
        counts = np.bincount(draws.ravel(), minlength=rounds * n_units).reshape(rounds, n_units)
        sums[start : start + rounds] = counts.astype(np.float64) @ columns
    return sums


def bootstrap(
    statistics: Mapping[str, Statistic],
    n_rounds: int = 1000,
    seed: int = 0,
    clusters: ArrayLike | None = None,
    level: float = 0.95,
) -> dict[str, float]:
    """Bootstrap intervals of several metrics over the same pairs.

    Args:
        statistics: name -> `Mean` or `BinnedGap`, all over the same N pairs.
        n_rounds: number of resamples, at least 1.
        seed: seed of the resampling; equal seeds give equal resamples.
        clusters: shape (N,), anything with an order; pairs with equal values are drawn together.
        level: coverage, in (0, 1).

    Returns:
        `<name>_low` and `<name>_high` of each metric. Resamples in which a metric is undefined do not count; a metric
        undefined in all has no keys, and a single pair or cluster gives no keys, since it says nothing about spread.

    Raises:
        ValueError: unequal lengths, n_rounds below 1, level outside (0, 1).
    """
    check_at_least("n_rounds", n_rounds, 1)
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; a value in (0, 1) is wanted")
    blocks = {name: statistic.columns for name, statistic in statistics.items()}
    if not blocks:
        return {}
    check_equal_lengths(**blocks)
    columns = np.concatenate(list(blocks.values()), axis=1)
    if clusters is not None:
        clusters = np.asarray(clusters)
        check_equal_lengths(clusters=clusters, **blocks)
        _, members = np.unique(clusters, return_inverse=True)
        columns = np.stack([np.bincount(members, column) for column in columns.T], axis=1)
    if len(columns) < 2:
        return {}
    sums = _resampled_sums(columns, n_rounds, seed)
    totals = columns.sum(axis=0, keepdims=True)
    ends = np.cumsum([block.shape[1] for block in blocks.values()])
    tails = [(1 - level) / 2, (1 + level) / 2]
    report = {}
    for (name, statistic), end in zip(statistics.items(), ends, strict=True):
        here = slice(end - blocks[name].shape[1], end)
        values = statistic.evaluate(sums[:, here])
        values = values[~np.isnan(values)]
        if values.size == 0:
            continue
        estimate = float(statistic.evaluate(totals[:, here])[0])
        low, high = statistic.interval(estimate, *np.quantile(values, tails))
        report[f"{name}_low"], report[f"{name}_high"] = float(low), float(high)
    return report
