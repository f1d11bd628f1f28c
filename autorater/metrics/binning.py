"""Bins of predicted probabilities; every binned metric assigns its bins here.

Verbalized probabilities lie on bin edges (0.1, 0.2, …), so the edges decide the result. Bins are right-closed,
((k−1)/K, k/K], with 0 in the first, and probabilities are compared after rounding to nine decimals. A comparison with
`np.linspace` edges would put 0.3 or 0.7 into a neighbouring bin, because 0.1 · 3 is not the double 0.3.
"""

from typing import Literal

import numpy as np

from autorater.metrics.validation import DECIMALS, check_at_least

N_BINS = 10
"""Bins of every reported calibration error."""
Strategy = Literal["uniform", "quantile", "distinct"]


def bin_indices(probabilities: np.ndarray, n_bins: int, strategy: Strategy) -> np.ndarray:
    """The bin of each probability, integers from 0 of shape (N,); bins may be empty.

    Args:
        probabilities: shape (N,), in [0, 1].
        n_bins: K, the number of bins; not used by "distinct".
        strategy: "uniform": K bins of equal width. "quantile": K bins of equal mass, as far as ties allow: equal
            values share the bin of the first of them. "distinct": one bin per distinct value.
    """
    check_at_least("n_bins", n_bins, 1)
    rounded = probabilities.round(DECIMALS)
    if strategy == "uniform":
        # Rounded again: 0.3 * 10 is 3.0000000000000004, whose ceiling is 4.
        return np.maximum(np.ceil((rounded * n_bins).round(DECIMALS)).astype(np.int64) - 1, 0)
    _, distinct, counts = np.unique(rounded, return_inverse=True, return_counts=True)
    if strategy == "distinct":
        return distinct
    if strategy == "quantile":
        below = np.cumsum(counts) - counts
        return (below * int(n_bins) // rounded.size)[distinct]
    raise ValueError(f'strategy is {strategy!r}; expected "uniform", "quantile" or "distinct"')
