"""Agreement: how often the verdict of the judge is the verdict of the majority.

The judge's verdict is B above 1/2, A below it; the majority's is that of the vote share. A split label has no
majority and is not counted. A judge that answers a tie, |p − 1/2| <= tie_band, is half right.

Where ties are verdicts in their own right, A, tie and B are three classes (`three_way_agreement`); then a band is
needed, for a judge that tells probabilities seldom says 0.5 itself.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from autorater.metrics.validation import DECIMALS, check_equal_lengths, check_probabilities


def verdicts(probabilities: np.ndarray, tie_band: float = 0.0) -> np.ndarray:
    """1 for B, −1 for A, 0 for a tie; shape (N,). Compared to nine decimals: the mean of 0.6 and 1 − 0.6 is a tie."""
    margins = (probabilities - 0.5).round(DECIMALS)
    return np.where(np.abs(margins) <= tie_band, 0.0, np.sign(margins))


def verdict_classes(probabilities: np.ndarray, tie_band: float) -> np.ndarray:
    """A, tie, B as ones and zeros, shape (N, 3)."""
    return np.equal.outer(verdicts(probabilities, tie_band), (-1.0, 0.0, 1.0)).astype(np.float64)


def macro_f1(said: np.ndarray, truth: np.ndarray) -> float:
    """Mean F1 of the classes that are said or true at least once, in [0, 1].

    Args:
        said: shape (N, K), rows that sum to one: the part of each class in the verdict.
        truth: shape (N, K), the same of the true class.
    """
    both, either = (said * truth).sum(axis=0), (said + truth).sum(axis=0)
    return float((2 * both[either > 0] / either[either > 0]).mean())


def agreement_credits(
    probabilities: np.ndarray, labels: np.ndarray, tie_band: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Credit of each prediction (0, 1/2 or 1; 0 without a majority) and whether it counts (0 or 1), each (N,)."""
    majority = verdicts(labels)
    counted = (majority != 0).astype(np.float64)
    return counted * (1 + verdicts(probabilities, tie_band) * majority) / 2, counted


def agreement(probabilities: ArrayLike, labels: ArrayLike, tie_band: float = 0.0) -> float:
    """Share of pairs with a majority on which the judge gives the same verdict; an answered tie counts one half.

    Args:
        probabilities: shape (N,), Pr[B preferred], in [0, 1].
        labels: shape (N,), share of votes for B, in [0, 1].
        tie_band: answers this close to 1/2 are ties, in [0, 0.5].

    Returns:
        In [0, 1]; 1/2 is chance.

    Raises:
        ValueError: empty input, unequal lengths, NaN, values outside their range, or no label other than 1/2.
    """
    probabilities, labels = _check(probabilities, labels, tie_band)
    credit, counted = agreement_credits(probabilities, labels, tie_band)
    if not counted.any():
        raise ValueError("every label is 0.5; at least one with a majority is wanted")
    return float(credit.sum() / counted.sum())


def three_way_agreement(probabilities: ArrayLike, labels: ArrayLike, tie_band: float = 0.05) -> dict[str, float]:
    """Agreement where A, tie and B are three verdicts and every pair counts, split votes included.

    Args:
        probabilities: shape (N,), Pr[B preferred], in [0, 1].
        labels: shape (N,), share of votes for B, in [0, 1].
        tie_band: answers and labels this close to 1/2 are ties, in [0, 0.5]. With nine votes or fewer, a band of 0.05
            holds no label but 1/2 itself.

    Returns:
        `agreement_three_way`: share of pairs with the same verdict. `macro_f1`: mean F1 of the verdicts that are given
        by the judge or the votes at least once. Both in [0, 1].

    Raises:
        ValueError: empty input, unequal lengths, NaN, values outside their range.
    """
    probabilities, labels = _check(probabilities, labels, tie_band)
    said, truth = verdict_classes(probabilities, tie_band), verdict_classes(labels, tie_band)
    return {"agreement_three_way": float((said * truth).sum() / len(said)), "macro_f1": macro_f1(said, truth)}


def check_tie_band(tie_band: float) -> None:
    """A band within [0, 0.5].

    Raises:
        ValueError: names the value.
    """
    if not 0 <= tie_band <= 0.5:
        raise ValueError(f"tie_band is {tie_band}; a value in [0, 0.5] is wanted")


def _check(probabilities: ArrayLike, labels: ArrayLike, tie_band: float) -> tuple[np.ndarray, np.ndarray]:
    probabilities = check_probabilities("probabilities", probabilities)
    labels = check_probabilities("labels", labels)
    check_equal_lengths(probabilities=probabilities, labels=labels)
    check_tie_band(tie_band)
    return probabilities, labels
