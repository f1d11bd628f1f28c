"""Is a mean of paired differences different from zero? The sign-flip test, and a correction for several tests.

A judge that does not care for slots has no reason to deviate in one direction: its two readings of a pair are drawn
alike, so every pair's deviation is as likely as its negative. Given their sizes, the sum S of the deviations is then
distributed as Σ ±|d_i| with fair signs,

    p = Pr[|Σ ε_i d_i| ≥ |Σ d_i|],  ε_i = ±1 with probability 1/2 each,

which is Fisher's randomization test for paired data (1935). Pairs are the unit. Pairs that do not deviate say nothing
about the direction and drop out; where all others deviate by the same amount this is McNemar's exact test.

The distribution is worked out exactly on a grid of 0.001. Rounding is odd, so it leaves the test exact. Beyond the
size at which that is cheap, S is taken as normal with its exact variance Σ d_i²; thousands of pairs are then summed.
Deliberately left out: tests that ask for normal deviations, which probabilities near 0 and 1 do not have.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

_STEPS = 1000  # of the grid, per unit
_MAX_OPERATIONS = 5e8  # a second or two


def sign_flip_test(deviations: np.ndarray) -> float:
    """Two-sided p-value of the hypothesis that deviations are as likely as their negatives.

    Args:
        deviations: shape (N,), one a pair.

    Returns:
        In (0, 1]; 1 where nothing deviates.
    """
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


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for being several, Holm (1979): rejecting those below α errs once in 1/α times at most.

    Args:
        p_values: Of K tests, dependent or not.

    Returns:
        K corrected p-values, in the given order.
    """
    corrected = [0.0] * len(p_values)
    floor = 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        floor = max(floor, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = floor
    return corrected
