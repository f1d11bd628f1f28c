"""Tests of position bias with pairs as units, and a correction for several tests.

Sign-flip test: is the mean deviation of pairs zero? If so, each deviation d_i is as likely as its negative, and

    p = Pr[|Σ ε_i d_i| ≥ |Σ d_i|],  ε_i = ±1 with probability 1/2 each,

which is Fisher's randomization test for paired data (1935), and McNemar's exact test if all non-zero deviations have
the same size. The distribution is computed exactly on a grid of 0.001; rounding is odd, so the test stays exact. For
thousands of pairs the sum is taken as normal with its exact variance Σ d_i².

Permutation test: does any pair's answer depend on its order? If not, the 2 R answers of a pair in R repetitions are
exchangeable. The test reassigns them to the orders within every pair and compares Σ (mean x − mean y)². It also
detects effects whose direction differs between pairs.
"""

import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np

_STEPS = 1000  # of the grid, per unit
_MAX_OPERATIONS = 5e8  # a second or two
_ROUNDS = 1999  # of permutations
_MAX_SPLITS = 252  # all ways to divide 10 answers into two fives


def sign_flip_test(deviations: np.ndarray) -> float:
    """Two-sided p-value, in (0, 1], that deviations of shape (N,) are as likely as their negatives."""
    steps = np.rint(np.asarray(deviations, dtype=np.float64) * _STEPS).astype(np.int64)
    steps = steps[steps != 0]
    if steps.size == 0:
        return 1.0
    sizes = np.abs(steps) // np.gcd.reduce(np.abs(steps))
    observed = abs(int(np.sum(np.sign(steps) * sizes)))
    total = int(sizes.sum())
    if total * sizes.size > _MAX_OPERATIONS:
        return math.erfc(observed / math.sqrt(2 * float((sizes.astype(np.float64) ** 2).sum())))
    # distribution of the sum X of those sizes whose sign is +; the flipped sum is 2 X − total
    chances = np.zeros(total + 1)
    chances[0] = 1.0
    reached = 0
    for size in sizes:
        here = chances[: reached + 1] / 2
        reached += int(size)
        chances[: reached + 1] /= 2
        chances[size : reached + 1] += here
    extreme = np.abs(2 * np.arange(total + 1) - total) >= observed
    return min(1.0, float(chances[extreme].sum()))


def any_slot_test(first: np.ndarray, second: np.ndarray, seed: int = 0) -> float:
    """p-value, in [1/2000, 1], of the hypothesis that no pair's answers depend on its order.

    `first` and `second`, shape (N, R), R >= 2, are Pr[B better] in R repetitions of each order. The permutations of
    a pair are drawn from all divisions of its 2 R answers for R <= 5, else from 252 random ones.
    """
    answers = np.concatenate([first, second], axis=1)
    n_pairs, n_answers = answers.shape
    n_repeats = n_answers // 2
    generator = np.random.default_rng(seed)
    if n_repeats <= 5:
        splits = list(combinations(range(n_answers), n_repeats))
    else:
        splits = [generator.permutation(n_answers)[:n_repeats] for _ in range(_MAX_SPLITS)]
    sums = np.stack([answers[:, list(split)].sum(axis=1) for split in splits], axis=1)
    squares = (2 * sums - answers.sum(axis=1, keepdims=True)) ** 2  # (N, splits), in units of 1/R²
    observed = float(((first - second).sum(axis=1) ** 2).sum())
    rows = np.arange(n_pairs)
    at_least = sum(
        squares[rows, generator.integers(len(splits), size=n_pairs)].sum() >= observed - 1e-9 for _ in range(_ROUNDS)
    )
    return (1 + int(at_least)) / (1 + _ROUNDS)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values of K tests, dependent or not, corrected to control the family-wise error rate, Holm (1979)."""
    p = np.asarray(p_values, dtype=np.float64)
    order = p.argsort()
    corrected = np.empty_like(p)
    corrected[order] = np.maximum.accumulate(np.minimum(1.0, np.arange(p.size, 0, -1) * p[order]))
    return corrected.tolist()
