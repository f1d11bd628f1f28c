"""The noise floor of the ECE: what a perfect judge would show with these answers and this many votes.

A mean over few votes misses the truth, and |·| cannot cancel the misses, so plug-in ECE is above zero even for a judge
whose every answer is right. The floor is found by drawing votes from the answers themselves (consistency resampling,
Bröcker and Smith 2007). An ECE near its floor is no evidence of miscalibration.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from autorater.metrics.binning import Strategy, bin_indices
from autorater.metrics.validation import check_at_least, check_probabilities, check_votes


def ece_noise_floor(
    probabilities: ArrayLike,
    n_votes: ArrayLike = 1,
    n_bins: int = 10,
    strategy: Strategy = "uniform",
    n_rounds: int = 100,
    seed: int = 0,
) -> float:
    """Expected ECE if every answer were the probability that its votes are drawn from, in [0, 1].

    The two orders of a pair share their votes; for a symmetric judge the floor over all 2N answers is the same as with
    2N separate labels, because the residual that order ab leaves in one bin, order ba leaves in the mirrored bin.

    Args:
        probabilities: shape (N,), Pr[B preferred], in [0, 1].
        n_votes: votes behind each label, one number or shape (N,).
        n_bins: number of bins; not used by "distinct".
        strategy: as in `reliability_curve`.
        n_rounds: simulated sets of votes; with 100 the simulation error is 2 to 4 % of the floor.
        seed: seed of the simulation.

    Raises:
        ValueError: empty input, unequal lengths, NaN, values outside their range, unknown strategy.
    """
    probabilities = check_probabilities("probabilities", probabilities)
    votes = check_votes("n_votes", n_votes, probabilities.size).astype(np.int64)
    check_at_least("n_rounds", n_rounds, 1)
    bins = bin_indices(probabilities, n_bins, strategy)
    generator = np.random.default_rng(seed)
    total = 0.0
    for _ in range(n_rounds):
        labels = generator.binomial(votes, probabilities) / votes
        total += np.abs(np.bincount(bins, labels - probabilities)).sum()
    return float(total / (n_rounds * probabilities.size))
