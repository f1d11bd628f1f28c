"""The interval of a share: Wilson's, which stays inside [0, 1] and has a width even where every pair agrees."""

from __future__ import annotations

import numpy as np

_Z = 1.959964


def wilson_interval(share: np.ndarray | float, n: np.ndarray | float, z: float = _Z) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's interval of a share of n independent trials, Wilson (1927).

    Args:
        share: What was seen, in [0, 1].
        n: Number of trials, above 0; need not be whole.
        z: Its half-width in standard errors; 1.96 for 95 %.

    Returns:
        `(low, high)`, shaped as the arguments; they contain the share.
    """
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    low, high = np.minimum(middle - half, share), np.maximum(middle + half, share)
    return np.clip(low, 0, 1), np.clip(high, 0, 1)  # rounding may leave 1e-17 past it
