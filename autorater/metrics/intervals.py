"""95 % bootstrap intervals of metrics that are functions of sums over pairs.

A resample draws N pairs with replacement, or whole clusters of dependent pairs (one prompt, one annotator). Every
metric here is a function of column sums, so a chunk of resamples is one matrix product, and all metrics share the same
resamples. More than 2^14 units are first divided at random into 2^14 groups, which are resampled instead; this adds
noise of 0.6 % to the width of an interval, and 1,000 rounds add 2.2 %.

Each kind of metric has its own interval, because percentile intervals suit few of them:

    Mean        bias-corrected and accelerated (BCa), Efron (1987), at expanded levels, Hesterberg (2015): the quantile
                of Student's t and the factor sqrt(n / (n − 1)) correct for few units, with n their effective number
    Share       for means of 0/1 values: Wilson's score interval with the effective number of trials, p (1 − p) /
                variance between units, because the bootstrap interval has no width if all units agree
    BinnedGap   for calibration errors, which are sums of absolute values. Noise does not cancel in them: the plug-in
                estimate e is too high, and resamples are higher still. The interval inverts a test, Carpenter (1999):
                it contains the scales λ of the gaps λ ĝ that are consistent with e after resampled noise is added,
                times e. It starts at 0 if noise alone explains e, and is widened to contain e.

Coverage on simulated data sets (`tests/metrics/test_coverage.py`): means and shares 93 to 96 %, from 50 pairs or 20
topics on; the ECE of a perfect judge 97 %, of five kinds of miscalibrated judges 88 to 99 %.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit

from autorater.metrics.clusters import cluster_numbers, effective_number
from autorater.metrics.validation import check_at_least, check_equal_lengths

_MAX_UNITS = 1 << 14
_CHUNK = 1 << 22  # counts in memory at once: 32 MB
_HALVINGS = 30
_NORMAL = NormalDist()
_LOWER, _UPPER = (1 - 0.95) / 2, (1 + 0.95) / 2  # tails of a 95 % interval
_Z = _NORMAL.inv_cdf(_UPPER)


def wilson_interval(share: np.ndarray | float, n: np.ndarray | float, z: float = _Z) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's (1927) interval `(low, high)` of a share in [0, 1] of n trials, z standard errors to each side.

    Numbers or arrays; n, above 0, need not be whole. The interval has a width even for the shares 0 and 1.
    """
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    low, high = np.minimum(middle - half, share), np.maximum(middle + half, share)
    return np.clip(low, 0, 1), np.clip(high, 0, 1)  # rounding may exceed them by 1e-17


_LEAST = 1e-3  # smallest denominator of a corrected quantile


@dataclass(frozen=True)
class Mean:
    """Σ values / Σ weights, both of shape (N,). Pairs of weight 0 do not count."""

    values: np.ndarray
    weights: np.ndarray | None = None

    @property
    def columns(self) -> np.ndarray:
        """One row per pair, shape (N, S); the metric is a function of the column sums."""
        weights = np.ones(len(self.values)) if self.weights is None else self.weights
        return np.stack([self.values, weights], axis=1)

    def evaluate(self, sums: np.ndarray) -> np.ndarray:
        """Column sums of shape (R, S) to values of shape (R,); NaN if undefined."""
        total, weight = sums.T
        return np.divide(total, weight, out=np.full(len(sums), np.nan), where=weight > 0)

    def interval(self, units: np.ndarray, sums: np.ndarray) -> tuple[float, float] | None:
        """The interval, None if undefined, from column sums of U >= 2 units, (U, S), and of R resamples, (R, S)."""
        values = self.evaluate(sums)
        values = values[~np.isnan(values)]
        if values.size == 0:
            return None
        estimate, influence = self._influence(units)
        variance = (influence**2).sum()
        acceleration = (influence**3).sum() / (6 * variance**1.5) if variance > 0 else 0.0
        side = np.sign((values - estimate).round(12))  # the rounding of sums must not decide ties
        below = np.mean(side < 0) + np.mean(side == 0) / 2
        edge = 1 / (2 * values.size)
        bias = _NORMAL.inv_cdf(float(np.clip(below, edge, 1 - edge)))

        def quantile(z: float) -> float:
            shifted = bias + z
            shrunk = 1 - acceleration * shifted
            if shrunk <= _LEAST:  # one unit has most of the weight: the end of all resamples
                return float(values.max() if shifted > 0 else values.min())
            return float(np.quantile(values, _NORMAL.cdf(bias + shifted / shrunk)))

        z = _half_width(effective_number(units[:, 1]))
        return min(quantile(-z), estimate), max(quantile(z), estimate)

    def _influence(self, units: np.ndarray) -> tuple[float, np.ndarray]:
        """The estimate, and the influence of each unit on it times the total weight; shape (U,), sum 0."""
        estimate = float(self.evaluate(units.sum(axis=0, keepdims=True))[0])
        return estimate, units[:, 0] - estimate * units[:, 1]


@dataclass(frozen=True)
class Share(Mean):
    """A `Mean` of values in [0, 1], most of which are 0 or 1: consistent pairs, verdicts."""

    def interval(self, units: np.ndarray, sums: np.ndarray) -> tuple[float, float] | None:
        if not units[:, 1].any():
            return None
        estimate, influence = self._influence(units)
        variance = (influence**2).sum() / units[:, 1].sum() ** 2
        if variance > 0:
            n_trials = estimate * (1 - estimate) / variance
        else:
            n_trials = np.count_nonzero(units[:, 1]) if estimate in (0, 1) else np.inf
        low, high = wilson_interval(estimate, n_trials, _half_width(effective_number(units[:, 1])))
        return float(low), float(high)


@dataclass(frozen=True)
class BinnedGap:
    """Σ_b |Σ_i gaps_ib| / Σ weights: a calibration error; gaps of shape (N, K) hold the residuals of pair i in bin b.

    Weights, shape (N,), are already factors of the gaps; default 1.
    """

    gaps: np.ndarray
    weights: np.ndarray | None = None

    @property
    def columns(self) -> np.ndarray:
        weights = np.ones(len(self.gaps)) if self.weights is None else self.weights
        return np.concatenate([self.gaps, weights[:, None]], axis=1)

    def evaluate(self, sums: np.ndarray) -> np.ndarray:
        weight = sums[:, -1]
        return np.divide(np.abs(sums[:, :-1]).sum(axis=1), weight, out=np.full(len(sums), np.nan), where=weight > 0)

    def interval(self, units: np.ndarray, sums: np.ndarray) -> tuple[float, float] | None:
        totals = units.sum(axis=0)
        gaps = totals[:-1] / totals[-1]
        estimate = float(np.abs(gaps).sum())
        sums = sums[sums[:, -1] > 0]  # a resample may have drawn pairs of weight 0 alone
        noise = sums[:, :-1] / sums[:, -1:] - gaps
        noise *= _half_width(effective_number(units[:, -1])) / _Z

        def scale(tail: float) -> float:
            """The scale of the gaps at which the estimate is this quantile; 0 if it is below the quantile already."""

            def below(scale: float) -> bool:
                return np.quantile(np.abs(scale * gaps + noise).sum(axis=1), tail) < estimate

            low, high = 0.0, 1.0
            if not below(low):
                return low
            while below(high):
                high *= 2
            for _ in range(_HALVINGS):
                middle = (low + high) / 2
                low, high = (middle, high) if below(middle) else (low, middle)
            return high

        low, high = (estimate * scale(tail) for tail in (_UPPER, _LOWER))
        return min(low, estimate), max(high, estimate)


class Statistic(Protocol):
    """A metric that is a function of sums over pairs, as the three above."""

    @property
    def columns(self) -> np.ndarray: ...

    def evaluate(self, sums: np.ndarray) -> np.ndarray: ...

    def interval(self, units: np.ndarray, sums: np.ndarray) -> tuple[float, float] | None: ...


def percentile_interval(values: np.ndarray, n_units: float) -> tuple[float, float] | None:
    """Percentiles of resampled values, NaN left out, at the expanded levels for n units; None without a value."""
    values = values[~np.isnan(values)]
    if values.size == 0:
        return None
    z = _half_width(n_units)
    low, high = np.quantile(values, [_NORMAL.cdf(-z), _NORMAL.cdf(z)])
    return float(low), float(high)


def point_estimate(statistic: Statistic) -> float:
    """The value of a metric over all pairs; NaN if it is undefined."""
    return float(statistic.evaluate(statistic.columns.sum(axis=0, keepdims=True))[0])


def point_estimates(statistics: Mapping[str, Statistic]) -> dict[str, float]:
    """The `point_estimate` of every metric."""
    return {name: point_estimate(statistic) for name, statistic in statistics.items()}


def bootstrap(
    statistics: Mapping[str, Statistic],
    n_rounds: int = 1000,
    seed: int = 0,
    clusters: ArrayLike | None = None,
) -> dict[str, float]:
    """95 % bootstrap intervals of several metrics over the same pairs.

    Args:
        statistics: name -> `Mean`, `Share`, `BinnedGap` or another `Statistic`, all over the same N pairs.
        n_rounds: number of resamples, at least 1.
        seed: seed of the resampling; equal seeds give equal resamples.
        clusters: shape (N,); pairs with equal values are resampled together.

    Returns:
        `<name>_low` and `<name>_high` of each metric, over the resamples in which it is defined; none for a single
        pair or cluster.

    Raises:
        ValueError: unequal lengths, n_rounds below 1.
    """
    check_at_least("n_rounds", n_rounds, 1)
    blocks = {name: statistic.columns for name, statistic in statistics.items()}
    if not blocks:
        return {}
    check_equal_lengths(**blocks)
    generator = np.random.default_rng(seed)
    members = np.arange(len(next(iter(blocks.values()))))
    if clusters is not None:
        members = cluster_numbers(clusters)
        check_equal_lengths(clusters=members, **blocks)
    n_units = int(members.max()) + 1
    if n_units < 2:
        return {}
    if n_units > _MAX_UNITS:
        members = (generator.permutation(n_units) % _MAX_UNITS)[members]
    columns = np.concatenate(list(blocks.values()), axis=1)
    units = np.stack([np.bincount(members, column) for column in columns.T], axis=1)
    sums = _resampled_sums(units, n_rounds, generator)
    report = {}
    start = 0
    for name, statistic in statistics.items():
        here = slice(start, start + blocks[name].shape[1])
        start = here.stop
        ends = statistic.interval(units[:, here], sums[:, here])
        if ends is not None:
            report[f"{name}_low"], report[f"{name}_high"] = ends
    return report


def _resampled_sums(units: np.ndarray, n_rounds: int, generator: np.random.Generator) -> np.ndarray:
    n_units = len(units)
    sums = np.empty((n_rounds, units.shape[1]))
    step = max(1, _CHUNK // n_units)
    for start in range(0, n_rounds, step):
        rounds = min(step, n_rounds - start)
        draws = generator.integers(n_units, size=(rounds, n_units))
        draws += n_units * np.arange(rounds)[:, None]
        counts = np.bincount(draws.ravel(), minlength=rounds * n_units).reshape(rounds, n_units)
        sums[start : start + rounds] = counts.astype(np.float64) @ units
    return sums


def _half_width(n_units: float) -> float:
    """Half-width of a 95 % interval in standard errors of the mean of n units (their variance divided by n).

    Fewer than two effective units count as two.
    """
    n_units = max(2.0, n_units)
    return float(stdtrit(n_units - 1, _UPPER) * np.sqrt(n_units / (n_units - 1)))
