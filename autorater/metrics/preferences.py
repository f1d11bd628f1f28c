"""Preference of a judge for a trait of responses, such as length, beyond that of people; and effects that can be seen.

With x the trait of response B less that of A (the binary logarithm of the ratio of lengths; ±1 for a system of the
judge's own family), p the judge's Pr[B preferred], both orders averaged, and y the share of votes for B:

    effect   Σ x (p − 1/2) / Σ x²     rise of the judge's preference with one unit of the trait
    bias     Σ x (p − y) / Σ x²       the same beyond people's

Least squares through the origin, so nothing depends on which response is called B. A judge that states the true
probability has no bias, whatever people like, and neither has one that votes as a person drawn from them. A judge with
extreme answers exaggerates what people like, which is a bias. Without votes only the effect is known, and people may
share it.

Few pairs with large x decide a slope, so its interval is not a bootstrap's: the standard error is the jackknife's,
which leaves out each unit in turn, and the quantile is that of Student's t for the effective number of units.
"""

from collections.abc import Mapping

import numpy as np
from scipy.special import stdtrit

from autorater.metrics.clusters import effective_number
from autorater.metrics.intervals import Mean

_OF_INTERVAL = (1.959964 + 0.841621) / (2 * 1.959964)  # for 80 % power in a two-sided test at 5 %


class Slope(Mean):
    """Σ x r / Σ x², from values x r and weights x² of shape (N,), with a jackknife interval."""

    def interval(self, units: np.ndarray, sums: np.ndarray) -> tuple[float, float] | None:
        total, weight = units.sum(axis=0)
        units = units[units[:, 1] > 0]
        if len(units) < 2:
            return None
        estimate = total / weight
        moved = (units[:, 0] - estimate * units[:, 1]) / (weight - units[:, 1])  # by leaving out each unit
        error = np.sqrt((len(units) - 1) / len(units) * (moved**2).sum())
        n_effective = max(2.0, effective_number(units[:, 1]))
        half = float(stdtrit(n_effective - 1, 0.975) * error)
        return float(estimate) - half, float(estimate) + half


def trait_statistics(
    name: str, trait: np.ndarray, preferences: np.ndarray, labels: np.ndarray | None
) -> dict[str, Slope]:
    """`<name>_effect` and, with votes, `<name>_bias` as statistics of `bootstrap`; empty if the trait does not vary.

    Args:
        trait: x, shape (N,), in any unit; NaN where it is unknown.
        preferences: p, shape (N,), in [0, 1].
        labels: y, shape (N,), in [0, 1]; NaN where there are no votes.
    """
    found = {}
    for key, reference in (("effect", np.full(trait.shape, 0.5)), ("bias", labels)):
        if reference is None:
            continue
        x = np.where(np.isnan(trait) | np.isnan(reference), 0.0, trait)
        if x.any():
            found[f"{name}_{key}"] = Slope(x * (preferences - np.nan_to_num(reference)), x**2)
    return found


def detectable_effect(metrics: Mapping[str, float], key: str) -> float | None:
    """The size of an effect that as many pairs show in 80 % of the cases, at the 5 % level; None without an interval.

    From the width of the 95 % interval, which is nearly proportional to 1 / sqrt(pairs).
    """
    if f"{key}_low" not in metrics:
        return None
    return float(_OF_INTERVAL * (metrics[f"{key}_high"] - metrics[f"{key}_low"]))


def pairs_for_effect(metrics: Mapping[str, float], key: str, effect: float) -> float | None:
    """The number of pairs that shows an effect of this size in 80 % of the cases; None as in `detectable_effect`."""
    detectable = detectable_effect(metrics, key)
    return None if detectable is None else float(np.ceil(metrics["n_pairs"] * (detectable / effect) ** 2))
