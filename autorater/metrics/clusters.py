"""Rows with equal values, such as the pairs of one prompt: their numbers, their rows, their effective number."""

from collections.abc import Hashable, Sequence
from contextlib import suppress

import numpy as np
from numpy.typing import ArrayLike


def cluster_numbers(clusters: ArrayLike | Sequence[Hashable]) -> np.ndarray:
    """Numbers from 0 of N values, shape (N,), equal for equal values; they ascend with values that can be sorted.

    Texts do not become an array, in which each would take the memory of the longest one. Raises a `ValueError` unless
    there is one hashable value per row.
    """
    if isinstance(clusters, np.ndarray) and clusters.ndim == 1 and np.issubdtype(clusters.dtype, np.number):
        return np.unique(clusters, return_inverse=True)[1]
    try:
        values = as_values(clusters)
        distinct = dict.fromkeys(values)
    except TypeError as error:
        raise ValueError(f"clusters: {error}; expected one hashable value per row") from error
    with suppress(TypeError):  # of values without an order
        distinct = sorted(distinct)
    numbers = {value: number for number, value in enumerate(distinct)}
    return np.array([numbers[value] for value in values], dtype=np.int64)


def as_values(clusters: ArrayLike | Sequence[Hashable]) -> list[Hashable]:
    """The values of a sequence, an array, a series or a tensor, whose elements are equal only to themselves."""
    return clusters.tolist() if hasattr(clusters, "tolist") else list(clusters)


def rows_by_number(numbers: np.ndarray) -> list[np.ndarray]:
    """The rows of each number that occurs among N, ascending, by one sort instead of a pass for every number."""
    order = np.argsort(numbers, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1)


def effective_number(weights: np.ndarray) -> float:
    """The number of clusters or rows of equal weight with the same noise, Kish (1965); weights are at least 0."""
    return float(weights.sum() ** 2 / (weights**2).sum())
