"""Noise floors: the value of each metric for a perfect judge with the same answers and the same number of votes.

A mean over few votes misses the truth, and absolute values do not cancel, so the ECE of a perfect judge is above zero:
consistency resampling, Bröcker and Smith (2007). A metric near its floor is no evidence against a judge.

    Brier       mean p (1 − p)                     log loss    mean entropy of p
    MSE         mean p (1 − p)/m                   ECE         Σ_b E|S_b| / N,  S_b = Σ_{i in b} (y_i − p_i)

In a bin with the variance of fifty votes or more S_b is nearly normal, and E|S_b| = σ sqrt(2/π) is accurate to 0.5 %.
In the other bins votes are simulated.
"""

import numpy as np
from numpy.typing import ArrayLike

from autorater.metrics.binning import N_BINS, Strategy, bin_indices
from autorater.metrics.scores import brier_scores, log_scores
from autorater.metrics.validation import check_at_least, check_probabilities, check_votes, check_weights

_MANY_VOTES = 50


def ece_noise_floor(
    probabilities: ArrayLike,
    n_votes: ArrayLike = 1,
    strategy: Strategy = "uniform",
    n_rounds: int = 100,
    seed: int = 0,
    weights: ArrayLike | None = None,
    both_orders: bool = False,
) -> float:
    """Expected ECE if every answer were the probability that its votes are drawn from, in [0, 1]; ten bins.

    The two orders of a pair share their votes. In two bins each has the noise of a label of its own, but in one bin,
    as two answers of 1/2 are, it cancels: a vote adds 1 to one of the labels and takes 1 from the other.

    Args:
        probabilities: shape (N,), Pr[B preferred], in [0, 1].
        n_votes: votes per label, one number or shape (N,).
        strategy: as in `expected_calibration_error`.
        n_rounds: simulated sets of votes, for bins of few votes; 100 leave an error of 2 to 4 % of the floor.
        seed: seed of the simulation.
        weights: shape (N,), at least 0, how much each answer counts; default 1.
        both_orders: The answers are those of N/2 pairs in order ab, then of the same pairs in order ba.

    Raises:
        ValueError: empty input, unequal lengths, NaN, values outside their range, unknown strategy, an odd number of
            answers of both orders.
    """
    probabilities = check_probabilities("probabilities", probabilities)
    votes = check_votes(n_votes, probabilities.size)
    weights = check_weights(weights, probabilities.size)
    check_at_least("n_rounds", n_rounds, 1)
    bins = bin_indices(probabilities, N_BINS, strategy)
    spread = probabilities * (1 - probabilities)
    if both_orders:
        if probabilities.size % 2:
            raise ValueError(f"probabilities has length {probabilities.size}; expected as many of order ab as of ba")
        ab, ba = bins.reshape(2, -1)
        spread[np.tile(ab == ba, 2)] = 0
    variance = np.bincount(bins, weights**2 * spread / votes)
    # σ⁴ / Σ p q / m³ is m Σ p q if all have m votes: the variance of the number of votes for B.
    many = variance**2 > _MANY_VOTES * np.bincount(bins, weights**4 * spread / votes**3)
    total = float(np.sqrt(2 / np.pi * variance[many]).sum())

    few = ~many[bins] & (spread > 0)
    if few.any():
        p, m, bins, w = probabilities[few], votes[few].astype(np.int64), bins[few], weights[few]
        generator = np.random.default_rng(seed)
        for _ in range(n_rounds):
            total += np.abs(np.bincount(bins, w * (generator.binomial(m, p) / m - p))).sum() / n_rounds
    return float(total / weights.sum())


def noise_floors(
    probabilities: ArrayLike,
    n_votes: ArrayLike | None = None,
    seed: int = 0,
    weights: ArrayLike | None = None,
    both_orders: bool = False,
) -> dict[str, float]:
    """Noise floors of `brier`, `log_loss` and, with `n_votes`, `mse_dense`, `ece` and `ece_quantile`.

    Args and errors as in `ece_noise_floor`.
    """
    probabilities = check_probabilities("probabilities", probabilities)
    weights = check_weights(weights, probabilities.size)
    floors = {
        "brier": float(np.average(brier_scores(probabilities, probabilities), weights=weights)),
        "log_loss": float(np.average(log_scores(probabilities, probabilities), weights=weights)),
    }
    if n_votes is None:
        return floors
    votes = check_votes(n_votes, probabilities.size)
    options = {"seed": seed, "weights": weights, "both_orders": both_orders}
    return floors | {
        "mse_dense": float(np.average(probabilities * (1 - probabilities) / votes, weights=weights)),
        "ece": ece_noise_floor(probabilities, votes, **options),
        "ece_quantile": ece_noise_floor(probabilities, votes, "quantile", **options),
    }
