"""The same judge measured by group of pairs: topic, model pair or length.

An average hides errors that cancel. Groups are sorted by how far their ECE exceeds its noise floor, because the ECE of
few votes is large by chance. Small groups are pooled into one; no pair is left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from autorater.metrics.binning import bin_indices
from autorater.metrics.clusters import rows_by_number
from autorater.metrics.summary import Targets, judge_metrics
from autorater.metrics.validation import check_at_least, check_equal_lengths, check_numbers

UNNAMED = "(no group)"
"""The group of the pairs whose group is None."""


@dataclass(frozen=True)
class GroupMetrics:
    """`judge_metrics` of one group of pairs; the name is its value as text or, for pooled groups, their number."""

    name: str
    n_pairs: int
    metrics: dict[str, float]


def group_metrics(
    answers: ArrayLike,
    targets: Targets,
    groups: Sequence[object] | np.ndarray,
    *,
    min_pairs: int = 20,
    n_bootstrap: int = 1000,
) -> list[GroupMetrics]:
    """`judge_metrics` of every group of pairs, the worst calibrated first.

    Args:
        answers: shape (N, 2), as in `judge_metrics`.
        targets: of the N pairs; labels are required.
        groups: N values; equal ones are one group. None is the group "(no group)".
        min_pairs: smaller groups are pooled into one, at least 1.
        n_bootstrap: rounds of the bootstrap; 0 for no intervals.

    Returns:
        One entry per group, by falling `ece` − `ece_noise_floor`, or by falling `ece` if a group has no noise floor.

    Raises:
        ValueError: as `judge_metrics`; a number of groups other than N; min_pairs below 1; no labels.
    """
    check_at_least("min_pairs", min_pairs, 1)
    if targets.labels is None:
        raise ValueError("targets have no labels; expected some, because groups are sorted by calibration")
    answers, names = np.asarray(answers), np.array([UNNAMED if group is None else str(group) for group in groups])
    check_equal_lengths(groups=names, answers=answers, **targets.columns)
    measured = [
        GroupMetrics(name, rows.size, judge_metrics(answers[rows], targets[rows], n_bootstrap=n_bootstrap))
        for name, rows in _members(names, min_pairs).items()
        if targets.weights is None or np.asarray(targets.weights)[rows].any()  # pairs of weight 0 do not count
    ]
    with_floors = all("ece_noise_floor" in group.metrics for group in measured)

    def excess(group: GroupMetrics) -> float:
        return group.metrics["ece"] - (group.metrics["ece_noise_floor"] if with_floors else 0)

    return sorted(measured, key=excess, reverse=True)


def _members(names: np.ndarray, min_pairs: int) -> dict[str, np.ndarray]:
    """Rows of each group; the name of the pooled groups states their number."""
    values, index, counts = np.unique(names, return_inverse=True, return_counts=True)
    rows = rows_by_number(index)
    members = {str(values[k]): rows[k] for k in np.flatnonzero(counts >= min_pairs)}
    small = np.flatnonzero(counts < min_pairs)
    if small.size:
        several = f"{small.size} groups" if small.size > 1 else f"1 group, {values[small[0]]}"
        members[f"(rest: {several}, below {min_pairs} pairs)"] = np.flatnonzero(np.isin(index, small))
    return members


def length_quartiles(lengths: ArrayLike) -> np.ndarray:
    """Names of four groups of pairs by length, (N,), of equal size as far as ties allow; lengths are at least 0.

    Example:
        >>> length_quartiles([5, 9, 1, 30]).tolist()
        ['length 5', 'length 9', 'length 1', 'length 30']
    """
    lengths = check_numbers("lengths", lengths, low=0)
    quarter = bin_indices(lengths, 4, "quantile")
    ends = {k: (lengths[quarter == k].min(), lengths[quarter == k].max()) for k in np.unique(quarter).tolist()}
    names = {k: f"length {low:g}" if low == high else f"length {low:g}–{high:g}" for k, (low, high) in ends.items()}
    return np.array([names[k] for k in quarter.tolist()])
