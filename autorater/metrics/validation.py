"""Input checks: arguments become float64 arrays, or a `ValueError` states what was got and what was expected.

Public functions check their arguments once; internal functions trust theirs.

A float32 0.3 is 0.300000012 in float64, past the edge of its bin. Probabilities of fewer than 64 bits are therefore
rounded to the decimals that their type holds (six for float32, three for float16).
"""

import math

import numpy as np
from numpy.typing import ArrayLike

DECIMALS = 9
"""Probabilities that agree to this many decimals are the same answer; arithmetic noise is near 1e-16."""
LEAST_VALID = 1e-12
"""Below this probability that an answer parses there is no answer."""


def check_probabilities(name: str, values: ArrayLike) -> np.ndarray:
    """Shape (N,), N >= 1, every value in [0, 1]."""
    return _probabilities(name, _vector(name, values), values)


def check_predictions(probabilities: ArrayLike, labels: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Predictions and their labels, each of shape (N,), every value in [0, 1]."""
    probabilities, labels = check_probabilities("probabilities", probabilities), check_probabilities("labels", labels)
    check_equal_lengths(probabilities=probabilities, labels=labels)
    return probabilities, labels


def check_orders(name: str, values: ArrayLike) -> np.ndarray:
    """Probabilities for N >= 1 pairs in both orders, shape (N, 2), as an array of shape (2, N)."""
    array = _array(name, values, "two-dimensional")
    if array.ndim != 2 or array.shape[1] != 2 or not array.size:
        raise ValueError(f"{name} has shape {array.shape}; expected (N, 2), N >= 1: one column per order")
    return np.ascontiguousarray(_probabilities(name, array, values).T)


def check_numbers(name: str, values: ArrayLike, low: float = -np.inf) -> np.ndarray:
    """Shape (N,), N >= 1, every value finite and at least `low`."""
    array = _vector(name, values)
    expected = "a finite number" if low == -np.inf else f"a finite number of at least {low:g}"
    reject(name, array, ~np.isfinite(array) | (array < low), expected)
    return array


def check_votes(n_votes: ArrayLike, length: int) -> np.ndarray:
    """Whole numbers of votes, at least 1, shape (length,); a single number applies to all rows."""
    array = _vector("n_votes", np.atleast_1d(np.asarray(n_votes)))
    if np.ndim(n_votes) == 0:
        array = np.repeat(array, length)
    wrong = ~np.isfinite(array) | (array < 1) | (array != np.floor(array))
    reject("n_votes", array, wrong, "a whole number of votes, at least 1")
    if array.size != length:
        raise ValueError(f"n_votes has length {array.size}; expected length {length}, or one number for all")
    return array


def check_weights(weights: ArrayLike | None, length: int) -> np.ndarray:
    """Weights of `length` rows, at least 0 and not all 0; ones for None."""
    if weights is None:
        return np.ones(length)
    array = check_numbers("weights", weights, low=0)
    if array.size != length:
        raise ValueError(f"weights has length {array.size}; expected length {length}")
    if not array.any():
        raise ValueError("weights are all 0; expected some above 0")
    return array


def check_distributions(name: str, values: ArrayLike) -> np.ndarray:
    """Distributions over K >= 2 classes, shape (N, K), N >= 1, normalized; row sums may differ from 1 by 1e-4."""
    table = _table(name, values)
    sums = table.sum(axis=1)
    wrong = np.abs(sums - 1) > 1e-4  # a float32 softmax is closer
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(f"{name}[{row}] sums to {sums[row]:.12g}; expected 1")
    return table / sums[:, None]


def check_class_counts(name: str, values: ArrayLike, shape: tuple[int, int]) -> np.ndarray:
    """Votes or vote shares per class, of the given shape, at least 0; every row has a positive sum."""
    table = _table(name, values)
    if table.shape != shape:
        raise ValueError(f"{name} has shape {table.shape}; expected {shape}")
    empty = table.sum(axis=1) == 0
    if empty.any():
        raise ValueError(f"{name}[{int(empty.argmax())}] is all zero; expected at least one vote")
    return table


def check_equal_lengths(**arrays: np.ndarray | None) -> None:
    """Every array that is given is as long as the first."""
    (first, length), *others = [(name, len(array)) for name, array in arrays.items() if array is not None]
    for name, other in others:
        if other != length:
            raise ValueError(f"{name} has length {other} and {first} has length {length}; expected equal lengths")


def check_at_least(name: str, value: int, minimum: int) -> None:
    """A whole number no smaller than `minimum`."""
    if not _number(value) >= minimum or _number(value) % 1:
        raise ValueError(f"{name} is {value}; expected a whole number of at least {minimum}")


def check_share(name: str, value: float) -> None:
    """A number between 0 and 1, both excluded."""
    if not 0 < _number(value) < 1:
        raise ValueError(f"{name} is {value}; expected a value in (0, 1)")


def _number(value: object) -> float:
    """A number of any type, also a tensor or an array of one; NaN for anything else."""
    try:
        return math.nan if isinstance(value, str) else float(value)
    except (TypeError, ValueError):
        return math.nan


def _array(name: str, values: ArrayLike, dimensions: str) -> np.ndarray:
    try:
        array = np.asarray(values)
        if array.dtype.kind == "c":
            raise TypeError("its numbers are complex")
        return array.astype(np.float64)
    except (TypeError, ValueError, RuntimeError) as error:  # the last of a tensor with gradients
        raise ValueError(f"{name} is not a {dimensions} array of numbers: {error}") from error


def reject(name: str, array: np.ndarray, wrong: np.ndarray, expected: str) -> None:
    """Raises a `ValueError` for the first wrong entry, if there is one."""
    if wrong.any():
        index = np.argwhere(wrong)[0].tolist()
        value = array[tuple(index)]
        raise ValueError(f"{name}{index} is {'NaN' if np.isnan(value) else f'{value:.12g}'}; expected {expected}")


def _vector(name: str, values: ArrayLike) -> np.ndarray:
    array = _array(name, values, "one-dimensional")
    if array.ndim != 1:
        raise ValueError(f"{name} has shape {array.shape}; expected a one-dimensional array")
    if array.size == 0:
        raise ValueError(f"{name} is empty; expected at least one value")
    reject(name, array, np.isnan(array), "a number")
    return array


def _table(name: str, values: ArrayLike) -> np.ndarray:
    table = _array(name, values, "two-dimensional")
    if table.ndim != 2 or table.shape[0] < 1 or table.shape[1] < 2:
        raise ValueError(f"{name} has shape {table.shape}; expected (N, K) with N >= 1 and K >= 2")
    reject(name, table, ~np.isfinite(table) | (table < 0), "a number of at least 0")
    return table


def _probabilities(name: str, array: np.ndarray, values: ArrayLike) -> np.ndarray:
    dtype = np.asarray(values).dtype
    if dtype.kind == "f" and dtype.itemsize < 8:
        array = array.round(np.finfo(dtype).precision)
    reject(name, array, ~((array >= 0) & (array <= 1)), "a value in [0, 1]")
    return array
