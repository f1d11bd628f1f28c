"""Agreement: how often the judge's verdict is the verdict of the majority.

The judge's verdict is B above 1/2 and A below it; the majority's verdict follows from the vote share in the same way.
A split label has no majority and does not count. A judge that answers 1/2 is half right. `three_way_agreement` treats
A, tie and B as three classes, with a band around 1/2, because few judges answer 0.5 exactly.
"""

import numpy as np
from numpy.typing import ArrayLike

from autorater.metrics.validation import DECIMALS, check_predictions, check_weights

TIE_BAND = 0.05
"""Answers and votes this close to 1/2 are ties where a tie is a verdict of its own."""


def verdicts(probabilities: np.ndarray, tie_band: float = 0.0) -> np.ndarray:
    """1 for B, −1 for A, 0 for a tie, of the same shape. Compared to nine decimals: (0.6 + 1 − 0.6)/2 is a tie."""
    margins = (probabilities - 0.5).round(DECIMALS)
    return np.where(np.abs(margins) <= tie_band, 0.0, np.sign(margins))


def three_verdicts(probabilities: np.ndarray) -> np.ndarray:
    """Verdicts A, tie and B, 1 for the one that is given, with a further axis of 3."""
    return np.equal.outer(verdicts(probabilities, TIE_BAND), (-1.0, 0.0, 1.0)).astype(np.float64)


def macro_f1(predicted: np.ndarray, truth: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Mean F1 over the classes that occur, from class weights of shape (N, K) whose rows sum to one.

    `weights`, shape (N,), say how much each row counts; default 1.
    """
    weights = np.ones(len(truth)) if weights is None else weights
    both, either = weights @ (predicted * truth), weights @ (predicted + truth)
    return float((2 * both[either > 0] / either[either > 0]).mean())


def agreement_credits(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Credit of each prediction (0, 1/2 or 1; 0 without a majority) and whether it counts (0 or 1), each (N,)."""
    majority = verdicts(labels)
    counted = (majority != 0).astype(np.float64)
    return counted * (1 + verdicts(probabilities) * majority) / 2, counted


def agreement(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Share of pairs with a majority on which the judge gives the same verdict; an answer of 1/2 counts one half.

    Args:
        probabilities: shape (N,), Pr[B preferred], in [0, 1].
        labels: shape (N,), share of votes for B, in [0, 1].

    Returns:
        In [0, 1]; 1/2 is chance.

    Raises:
        ValueError: empty input, unequal lengths, NaN, values outside [0, 1], or every label is 1/2.
    """
    credit, counted = agreement_credits(*check_predictions(probabilities, labels))
    if not counted.any():
        raise ValueError("every label is 0.5; expected at least one with a majority")
    return float(credit.sum() / counted.sum())


def three_way_agreement(
    probabilities: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None
) -> dict[str, float]:
    """Agreement with A, tie and B as three verdicts; every pair counts, split votes included.

    Args and errors as in `agreement`; answers and labels within 0.05 of 1/2 are ties. With at most nine votes no label
    but 1/2 is. `weights`, shape (N,), at least 0, say how much each pair counts.

    Returns:
        `agreement_three_way`: share of pairs with the same verdict. `macro_f1`: mean F1 over the verdicts that the
        judge or the votes give at least once. Both in [0, 1].
    """
    predicted, truth = map(three_verdicts, check_predictions(probabilities, labels))
    weights = check_weights(weights, len(predicted))
    return {
        "agreement_three_way": float(np.average((predicted * truth).sum(axis=1), weights=weights)),
        "macro_f1": macro_f1(predicted, truth, weights),
    }
