"""A mean of paired differences and its standard error, summed by cluster."""

import numpy as np
from numpy.typing import ArrayLike

from autorater.metrics.clusters import cluster_numbers


def mean_and_error(differences: np.ndarray, weights: np.ndarray, clusters: ArrayLike) -> tuple[float, float, int]:
    """The weighted mean of N differences, its standard error, and the degrees of freedom of Student's t.

    Args:
        differences, weights: shape (N,); weights of at least 0, not all 0.
        clusters: shape (N,), dependent pairs have equal values. Those of weight 0 do not count.

    Returns:
        `(mean, error, freedom)`; with a single cluster the error is infinite and there is no freedom.
    """
    members = cluster_numbers(clusters)
    total = weights.sum()
    mean = float(weights @ differences / total)
    terms = np.bincount(members, weights * (differences - mean) / total)
    n_clusters = int(np.count_nonzero(np.bincount(members, weights)))
    if n_clusters < 2:
        return mean, np.inf, 0
    return mean, float(np.sqrt((terms**2).sum() * n_clusters / (n_clusters - 1))), n_clusters - 1
