"""The door of the metrics: whatever comes in leaves as checked float64 arrays, or as a `ValueError` that says why.

Functions behind the door trust their arguments.

A single-precision 0.3 is 0.300000012 in double precision, which is past the edge of the bin it belongs to.
Probabilities of fewer than 64 bits are therefore rounded to the decimals their type holds (six for float32, three for
float16).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

DECIMALS = 9
"""Probabilities that agree to this many decimals are the same answer; arithmetic noise is near 1e-16."""


def _vector(name: str, values: ArrayLike) -> np.ndarray:
    try:
        array = np.asarray(values).astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} is not a one-dimensional array of numbers: {error}") from error
    if array.ndim != 1:
        raise ValueError(f"{name} has shape {array.shape}; a one-dimensional array is wanted")
    if array.size == 0:
        raise ValueError(f"{name} is empty; at least one value is wanted")
    if np.isnan(array).any():
        raise ValueError(f"{name}[{int(np.isnan(array).argmax())}] is NaN; a number is wanted")
    return array


def _rounded(array: np.ndarray, values: ArrayLike) -> np.ndarray:
    dtype = np.asarray(values).dtype
    return array if dtype.kind != "f" or dtype.itemsize >= 8 else array.round(np.finfo(dtype).precision)


def check_scores(name: str, values: ArrayLike) -> np.ndarray:
    """Scores as a float64 array of shape (N,), N >= 1, every value finite; those of a narrower type are not rounded.

    Raises:
        ValueError: empty, not one-dimensional, not numbers, NaN or infinite; names the value and its index.
    """
    array = _vector(name, values)
    if np.isinf(array).any():
        index = int(np.isinf(array).argmax())
        raise ValueError(f"{name}[{index}] is {array[index]}; a finite number is wanted")
    return array


def check_probabilities(name: str, values: ArrayLike) -> np.ndarray:
    """Probabilities as a float64 array of shape (N,), N >= 1, every value in [0, 1].

    Raises:
        ValueError: empty, not one-dimensional, not numbers, NaN, or outside [0, 1]; names the value and its index.
    """
    array = _rounded(_vector(name, values), values)
    outside = (array < 0) | (array > 1)
    if outside.any():
        index = int(outside.argmax())
        raise ValueError(f"{name}[{index}] is {array[index]:.12g}; a value in [0, 1] is wanted")
    return array


def check_numbers(name: str, values: ArrayLike, low: float = -np.inf) -> np.ndarray:
    """Finite numbers no smaller than `low` as a float64 array of shape (N,), N >= 1.

    Raises:
        ValueError: empty, not one-dimensional, NaN, infinite, not numbers or below `low`; names value and index.
    """
    array = _vector(name, values)
    wrong = ~np.isfinite(array) | (array < low)
    if wrong.any():
        index = int(wrong.argmax())
        raise ValueError(f"{name}[{index}] is {array[index]:.12g}; a finite number of at least {low:g} is wanted")
    return array


def check_votes(name: str, values: ArrayLike, length: int) -> np.ndarray:
    """Numbers of votes as a float64 array of shape (length,); one number stands for all rows.

    Raises:
        ValueError: not whole, below one, NaN or infinite, or of another length.
    """
    array = _vector(name, np.atleast_1d(np.asarray(values)))
    if np.ndim(values) == 0:
        array = np.repeat(array, length)
    wrong = ~np.isfinite(array) | (array < 1) | (array != np.floor(array))
    if wrong.any():
        index = int(wrong.argmax())
        raise ValueError(f"{name}[{index}] is {array[index]:.12g}; a whole number of votes, at least 1, is wanted")
    if array.size != length:
        raise ValueError(f"{name} has length {array.size}; length {length} is wanted, or one number for all")
    return array


def check_equal_lengths(**arrays: np.ndarray) -> None:
    """Every array is as long as the first.

    Raises:
        ValueError: names both arrays and their lengths.
    """
    (first, reference), *others = arrays.items()
    for name, array in others:
        if len(array) != len(reference):
            raise ValueError(
                f"{name} has length {len(array)} and {first} has length {len(reference)}; equal is wanted"
            )


def check_at_least(name: str, value: int, minimum: int) -> None:
    """A whole number no smaller than `minimum`.

    Raises:
        ValueError: names the value.
    """
    if value != int(value) or value < minimum:
        raise ValueError(f"{name} is {value}; a whole number of at least {minimum} is wanted")


def _table(name: str, values: ArrayLike, shape: tuple[int, int] | None) -> np.ndarray:
    try:
        table = np.asarray(values).astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} is not a two-dimensional array of numbers: {error}") from error
    if table.ndim != 2 or table.shape[0] < 1 or table.shape[1] < 2:
        raise ValueError(f"{name} has shape {table.shape}; (N, K) with N >= 1 and K >= 2 is wanted")
    if shape is not None and table.shape != shape:
        raise ValueError(f"{name} has shape {table.shape}; {shape} is wanted")
    wrong = ~np.isfinite(table) | (table < 0)
    if wrong.any():
        row, column = np.argwhere(wrong)[0].tolist()
        raise ValueError(f"{name}[{row}, {column}] is {table[row, column]:.12g}; a number of at least 0 is wanted")
    return table


def check_distributions(name: str, values: ArrayLike) -> np.ndarray:
    """Distributions over K classes as a float64 array of shape (N, K), N >= 1, K >= 2; rows sum to one exactly.

    Raises:
        ValueError: not such a table, NaN, infinite or negative, or a row whose sum is further than 1e-4 from 1.
    """
    table = _table(name, values, None)
    sums = table.sum(axis=1)
    wrong = np.abs(sums - 1) > 1e-4  # what single precision leaves of a softmax is nearer
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(f"{name}[{row}] sums to {sums[row]:.12g}; 1 is wanted")
    return table / sums[:, None]


def check_counts(name: str, values: ArrayLike, shape: tuple[int, int]) -> np.ndarray:
    """Votes or shares of votes by class as a float64 array of the given shape, no row without any.

    Raises:
        ValueError: of another shape, NaN, infinite or negative, or a row of zeros.
    """
    table = _table(name, values, shape)
    empty = table.sum(axis=1) == 0
    if empty.any():
        raise ValueError(f"{name}[{int(empty.argmax())}] is all zero; at least one vote is wanted")
    return table
