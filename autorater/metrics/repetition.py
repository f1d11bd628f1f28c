"""Repetition: what a judge says when the same question is asked again, so that noise is not called bias.

A judge that draws its answers contradicts itself without any slot being favoured. Of R answers to the same question,
x_1 … x_R, and R to the swapped one, y_1 … y_R, all as Pr[B better]:

    repetition stability   share of the commonest verdict among the R, Shi et al. (arXiv 2406.07791)
    repeated flip rate     how often two answers to the same question have different winners
    slot effect            root of the mean over pairs of (E x − E y)²: what swapping does beyond noise

(E x − E y)² is estimated without bias by the products (x_k − y_k)(x_l − y_l), k ≠ l, whose noises are independent.
If no pair cares for its order, its 2 R answers are exchangeable: the permutation test deals them out anew within every
pair and looks at Σ (mean x − mean y)². It sees what a mean over pairs cannot: slots that are favoured now here, now
there.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np

from autorater.metrics.agreement import verdicts

_MAX_SPLITS = 252  # all ways to deal out 10 answers


def repetition_stability(answers: np.ndarray) -> float:
    """Share of the commonest verdict among R answers to the same question, averaged over questions.

    Args:
        answers: shape (M, R), R >= 2, in [0, 1].

    Returns:
        In [1/3, 1]; 1 where a repeated question always gets the same verdict.
    """
    said = verdicts(answers)
    return float(np.max([(said == verdict).mean(axis=1) for verdict in (-1, 0, 1)], axis=0).mean())


def repeated_flip_rate(answers: np.ndarray) -> float:
    """How often two different answers to the same question have different verdicts, averaged over questions.

    Args:
        answers: shape (M, R), R >= 2, in [0, 1].

    Returns:
        In [0, 1]; a judge that is only noisy has the same flip rate when the responses are swapped.
    """
    said = verdicts(answers)
    n_repeats = said.shape[1]
    same = sum((said == verdict).sum(axis=1) ** 2 for verdict in (-1, 0, 1))
    return float((1 - (same - n_repeats) / (n_repeats * (n_repeats - 1))).mean())


def slot_effect(deviations: np.ndarray) -> float:
    """Root mean square over pairs of what swapping does to the answer beyond noise.

    Args:
        deviations: shape (N, R), R >= 2, symmetry deviations of N pairs in R repetitions.

    Returns:
        In [0, 1]; 0 also where the estimate of the mean square is negative, as it is by chance where there is none.
    """
    n_repeats = deviations.shape[1]
    products = (deviations.sum(axis=1) ** 2 - (deviations**2).sum(axis=1)) / (n_repeats * (n_repeats - 1))
    return float(np.sqrt(max(0.0, products.mean())))


def any_slot_test(first: np.ndarray, second: np.ndarray, n_rounds: int = 1999, seed: int = 0) -> float:
    """p-value of the hypothesis that no pair's answers depend on its order.

    Args:
        first: shape (N, R), R >= 2, Pr[B better] read R times from one order.
        second: shape (N, R), Pr[B better] read R times from the other.
        n_rounds: Permutations drawn, at least 1.
        seed: Of the permutations.

    Returns:
        In [1/(n_rounds + 1), 1]. Of every pair's ways to deal its 2 R answers out, all are drawn from up to R = 5, and
        252 taken at random beyond.
    """
    answers = np.concatenate([first, second], axis=1)
    n_pairs, n_answers = answers.shape
    n_repeats = n_answers // 2
    generator = np.random.default_rng(seed)
    if n_repeats <= 5:
        dealt = list(combinations(range(n_answers), n_repeats))
    else:
        dealt = [generator.permutation(n_answers)[:n_repeats] for _ in range(_MAX_SPLITS)]
    sums = np.stack([answers[:, list(split)].sum(axis=1) for split in dealt], axis=1)
    squares = (2 * sums - answers.sum(axis=1, keepdims=True)) ** 2  # (N, splits), in units of 1/R²
    observed = float(((first - second).sum(axis=1) ** 2).sum())
    rows = np.arange(n_pairs)
    at_least = sum(
        squares[rows, generator.integers(len(dealt), size=n_pairs)].sum() >= observed - 1e-9 for _ in range(n_rounds)
    )
    return (1 + int(at_least)) / (1 + n_rounds)
