"""Groups of pairs: the same judge, measured topic by topic, model pair by model pair, length by length.

An average hides where a judge is wrong: overconfident on one topic and timid on another is calibrated over both. Each
group is measured by `judge_metrics`, and the worst comes first. Worst is what lies furthest above its own noise floor,
not what has the largest ECE: few votes have a large ECE by chance.

Small groups say nothing by themselves and are pooled into one, which is named. No pair is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from autorater.metrics.binning import bin_indices
from autorater.metrics.summary import judge_metrics
from autorater.metrics.validation import check_at_least, check_numbers

UNNAMED = "(no group)"
"""The group of the pairs that have none, where their column is empty."""


@dataclass(frozen=True)
class GroupMetrics:
    """How a judge did on one group of pairs.

    Attributes:
        name: The group's value, as text; of the pooled small groups, how many they are.
        n_pairs: Number of pairs, at least 1.
        metrics: As `judge_metrics` gives them for these pairs.
    """

    name: str
    n_pairs: int
    metrics: dict[str, float]


def group_metrics(
    p_ab: ArrayLike,
    p_ba: ArrayLike,
    labels: ArrayLike,
    groups: Sequence[object] | np.ndarray,
    *,
    n_votes: ArrayLike | None = None,
    true_probability: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
    min_pairs: int = 20,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> list[GroupMetrics]:
    """`judge_metrics` of every group of pairs, the worst calibrated first.

    Args:
        p_ab: shape (N,), Pr[B better] read from order ab, in [0, 1].
        p_ba: shape (N,), Pr[A better] read from order ba, in [0, 1].
        labels: shape (N,), Pr[B preferred] by the votes, in [0, 1].
        groups: N values; equal ones are one group. None is the group "(no group)".
        n_votes: votes behind each label, one number or shape (N,).
        true_probability: shape (N,), p* = Pr[B preferred], where the annotators are simulated.
        clusters: shape (N,), pairs with equal values are resampled together.
        min_pairs: smaller groups are pooled into one, at least 1.
        n_bootstrap: rounds of the bootstrap; 0 for no intervals.
        seed: seed of the bootstrap.

    Returns:
        One entry a group, by falling `ece` − `ece_noise_floor`, or by falling `ece` where a group has no noise floor
        (the votes behind its labels are not known).

    Raises:
        ValueError: as `judge_metrics`; a number of groups other than N; min_pairs below 1.
    """
    check_at_least("min_pairs", min_pairs, 1)
    columns = {"p_ab": p_ab, "p_ba": p_ba, "labels": labels, "true_probability": true_probability}
    columns |= {"n_votes": n_votes if np.ndim(n_votes) else None, "clusters": clusters}
    arrays = {name: np.asarray(values) for name, values in columns.items() if values is not None}
    names = np.array([UNNAMED if group is None else str(group) for group in groups])
    for name, array in arrays.items():
        if array.shape != names.shape:
            raise ValueError(f"{name} has shape {array.shape} and there are {names.size} groups; equal is wanted")
    shared = {"n_bootstrap": n_bootstrap, "seed": seed} | ({} if np.ndim(n_votes) else {"n_votes": n_votes})
    measured = [
        GroupMetrics(name, rows.size, judge_metrics(**{key: a[rows] for key, a in arrays.items()}, **shared))
        for name, rows in _members(names, min_pairs).items()
    ]
    with_floors = all("ece_noise_floor" in group.metrics for group in measured)

    def badness(group: GroupMetrics) -> float:
        return group.metrics["ece"] - (group.metrics["ece_noise_floor"] if with_floors else 0)

    return sorted(measured, key=badness, reverse=True)


def _members(names: np.ndarray, min_pairs: int) -> dict[str, np.ndarray]:
    """Rows of each group; the small ones pooled under a name that says how many they are."""
    values, index, counts = np.unique(names, return_inverse=True, return_counts=True)
    members = {str(values[k]): np.flatnonzero(index == k) for k in np.flatnonzero(counts >= min_pairs)}
    small = np.flatnonzero(counts < min_pairs)
    if small.size:
        several = f"{small.size} groups" if small.size > 1 else f"1 group, {values[small[0]]}"
        members[f"(rest: {several}, below {min_pairs} pairs)"] = np.flatnonzero(np.isin(index, small))
    return members


def length_quartiles(lengths: ArrayLike) -> np.ndarray:
    """Four groups of pairs by length, of equal size as far as equal lengths allow: those share a group.

    Args:
        lengths: shape (N,), numbers at least 0, such as the characters of both responses together.

    Returns:
        Names of shape (N,), "length 12–80": the smallest and the largest length of the group.

    Raises:
        ValueError: empty input, not one-dimensional, NaN or infinite, below 0.

    Example:
        >>> length_quartiles([5, 9, 1, 30]).tolist()
        ['length 5', 'length 9', 'length 1', 'length 30']
    """
    lengths = check_numbers("lengths", lengths, low=0)
    quarter = bin_indices(lengths, 4, "quantile")
    ends = {k: (lengths[quarter == k].min(), lengths[quarter == k].max()) for k in np.unique(quarter).tolist()}
    names = {k: f"length {low:g}" if low == high else f"length {low:g}–{high:g}" for k, (low, high) in ends.items()}
    return np.array([names[k] for k in quarter.tolist()])
