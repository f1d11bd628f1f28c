"""The position metrics of a judge under audit, as flat keys with intervals and tests, from one or several readings.

An audit reads each pair twice, and each reading R times; some readings have no answer. Both readings are told as the
probability that what may be favoured is better: the second slot, where the responses are swapped, or (other probes,
`autorater.audit.probes`) the response that was padded. A reading counts where its partner of the same repetition has
an answer too; a pair is the mean of its repetitions, and pairs are what is resampled and tested. Verdicts without a
probability are 0, 1/2 (tie) and 1.

From Shi et al. (arXiv 2406.07791): of all pairs, the primacy share prefers the first slot in both readings, or in one
with a tie in the other, the recency share likewise the second; the rest is consistent. Preference fairness is there

    (recency · recency% − primacy · primacy%) / n = (recency − primacy) / n,    in [−1, 1], 0 is fair.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from autorater.metrics.agreement import verdicts
from autorater.metrics.intervals import Mean, Share, bootstrap
from autorater.metrics.position import logit_shifts, position_terms, symmetrize
from autorater.metrics.repetition import (
    any_slot_test,
    repeated_flip_rate,
    repeated_spread,
    repetition_stability,
    slot_effect,
)
from autorater.metrics.significance import sign_flip_test

_QUANTILES = (5, 25, 50, 75, 95)


def check_answers(answers: ArrayLike) -> np.ndarray:
    """Answers of an audit as a float64 array of shape (N, 2, R), NaN where there is no answer.

    Args:
        answers: shape (N, 2) or (N, 2, R).

    Raises:
        ValueError: another shape, or a value outside [0, 1].
    """
    array = np.asarray(answers, dtype=np.float64)
    array = array[:, :, None] if array.ndim == 2 else array
    if array.ndim != 3 or array.shape[1] != 2 or array.shape[2] == 0:
        raise ValueError(f"answers have shape {np.shape(answers)}; (pairs, 2) or (pairs, 2, repeats) is wanted")
    outside = (array < 0) | (array > 1)
    if outside.any():
        index = tuple(int(i) for i in np.argwhere(outside)[0])
        raise ValueError(f"answers{list(index)} is {array[index]:.12g}; a value in [0, 1] is wanted")
    return array


def compared(answers: np.ndarray) -> np.ndarray:
    """Which repetitions of which pairs have both readings, shape (N, R)."""
    return ~np.isnan(answers).any(axis=1)


def pair_means(answers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean over the compared repetitions of the two readings, each (N,); NaN where no repetition has both."""
    counted = compared(answers)
    return tuple(_mean_of_repeats(np.where(counted, answers[:, side], np.nan)) for side in (0, 1))


def only_verdicts(*answers: np.ndarray) -> bool:
    """Whether all answers are 0, 1/2 or 1 (or NaN): a judge that names a winner or a tie, and no probability."""
    return all(bool(np.isin(side[~np.isnan(side)], (0, 0.5, 1)).all()) for side in answers)


def audit_metrics(
    answers: ArrayLike, labels: ArrayLike | None = None, *, n_bootstrap: int = 1000, seed: int = 0
) -> dict[str, float]:
    """Everything there is to say about the position bias of one judge, as JSON-ready floats.

    Args:
        answers: shape (N, 2) or (N, 2, R): Pr[second slot better] from order ab and from order ba, in R repetitions,
            in [0, 1]; NaN where the judge gave no answer.
        labels: shape (N,), Pr[B preferred] by people, NaN where it is not known.
        n_bootstrap: rounds of the bootstrap; 0 for no intervals.
        seed: of the bootstrap and of the permutations.

    Returns:
        Keys that are undefined are left out.

        - `n_pairs`, pairs that could be compared; `n_repeats`, R.
        - `consistency`, `flip_rate`, `first_slot_share`, `symmetry_deviation_mean`, `symmetry_deviation_abs`,
          `sharpness_symmetrized` as in `position_bias`; `second_slot_share` = 1 − `first_slot_share`; `sharpness`,
          variance of the answers; `symmetry_deviation_q05` … `_q95`, quantiles of SD over pairs, and
          `symmetry_deviation_abs_q50`, `_q95`.
        - `primacy_share`, `recency_share`, `preference_fairness`.
        - `logit_shift`, see `logit_shifts`; not for judges that give only verdicts.
        - `accuracy`, share of readings whose verdict is the label's, and `position_consistent_accuracy`, share of
          pairs that are right in both orders; over pairs whose label is not 1/2; a tie is wrong.
        - `p_value_verdicts` and `p_value_probabilities`, sign-flip tests of no slot being favoured on the verdicts
          and on SD; the second not for judges that give only verdicts.
        - with R > 1: `repetition_stability`, `repeated_flip_rate`, `repeated_spread`, `slot_effect` and
          `p_value_any_slot`, over pairs with all their answers.
        - `<key>_low` and `<key>_high`, 95 % over pairs, of every mean and share; a single pair has none.

    Raises:
        ValueError: another shape, values outside [0, 1], or no pair with both answers.
    """
    answers = check_answers(answers)
    counted = compared(answers)
    kept = counted.any(axis=1)
    if not kept.any():
        raise ValueError("no pair has an answer in both orders; there is nothing to compare")
    answers, counted = answers[kept], counted[kept]
    first, second = (np.where(counted, answers[:, side], np.nan) for side in (0, 1))
    n_pairs, n_repeats = counted.shape
    terms = {name: _mean_of_repeats(np.where(counted, t, np.nan)) for name, t in position_terms(first, second).items()}
    leaning = _mean_of_repeats(np.where(counted, (verdicts(first) + verdicts(second)) / 2, np.nan))
    primacy = _mean_of_repeats(np.where(counted, verdicts(first) + verdicts(second) < 0, np.nan))
    recency = _mean_of_repeats(np.where(counted, verdicts(first) + verdicts(second) > 0, np.nan))
    deviation = terms["deviation"]

    statistics = {
        "consistency": Share(terms["consistent"]),
        "flip_rate": Share(1 - terms["consistent"]),
        "primacy_share": Share(primacy),
        "recency_share": Share(recency),
        "preference_fairness": Mean(recency - primacy),
        "symmetry_deviation_mean": Mean(deviation),
        "symmetry_deviation_abs": Mean(_mean_of_repeats(np.abs(first + second - 1))),
    }
    if terms["decided"].any():
        statistics["first_slot_share"] = Share(terms["first"], terms["decided"])
        statistics["second_slot_share"] = Share(terms["decided"] - terms["first"], terms["decided"])
    if labels is not None:
        right, right_twice, has_winner = _right(first, second, np.asarray(labels, dtype=np.float64)[kept])
        if has_winner.any():
            statistics["accuracy"] = Share(right, has_winner)
            statistics["position_consistent_accuracy"] = Share(right_twice, has_winner)
    has_probabilities = not only_verdicts(first, second)
    if has_probabilities:
        statistics["logit_shift"] = Mean(_mean_of_repeats(logit_shifts(first, second)))

    report = {"n_pairs": float(n_pairs), "n_repeats": float(n_repeats)}
    for name, statistic in statistics.items():
        report[name] = float(statistic.evaluate(statistic.columns.sum(axis=0, keepdims=True))[0])
    for name, values in (("symmetry_deviation", deviation), ("symmetry_deviation_abs", np.abs(deviation))):
        for quantile in _QUANTILES if name == "symmetry_deviation" else (50, 95):
            report[f"{name}_q{quantile:02d}"] = float(np.quantile(values, quantile / 100))
    report["sharpness"] = float(np.nanvar(np.stack([first, second])))
    report["sharpness_symmetrized"] = float(symmetrize(_mean_of_repeats(first), _mean_of_repeats(second)).var())
    report["p_value_verdicts"] = sign_flip_test(leaning)
    if has_probabilities:
        report["p_value_probabilities"] = sign_flip_test(deviation)
    complete = counted.all(axis=1)
    if n_repeats > 1 and complete.any():
        report |= _repetition(answers[complete], seed)
    if n_bootstrap:
        report |= bootstrap(statistics, n_bootstrap, seed)
    return report


def _mean_of_repeats(values: np.ndarray) -> np.ndarray:
    """Mean over repetitions without the NaNs; NaN where there are only NaNs. (N, R) to (N,)."""
    present = ~np.isnan(values)
    total = np.where(present, values, 0).sum(axis=1)
    return np.divide(total, present.sum(axis=1), out=np.full(len(values), np.nan), where=present.any(axis=1))


def _right(first: np.ndarray, second: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How often a reading is right, how often both are, and whether the label has a winner, each (N,).

    Without a winner, nothing is right.
    """
    winner = verdicts(labels)
    has_winner = ~np.isnan(winner) & (winner != 0)
    right_first = verdicts(first) == winner[:, None]
    right_second = verdicts(second) == -winner[:, None]
    judged = ~np.isnan(first)
    right, right_twice = (
        has_winner * _mean_of_repeats(np.where(judged, credit, np.nan))
        for credit in ((right_first.astype(np.float64) + right_second) / 2, right_first & right_second)
    )
    return right, right_twice, has_winner.astype(np.float64)


def _repetition(answers: np.ndarray, seed: int) -> dict[str, float]:
    first, second = answers[:, 0], answers[:, 1]
    questions = np.concatenate([first, second])
    return {
        "repetition_stability": repetition_stability(questions),
        "repeated_flip_rate": repeated_flip_rate(questions),
        "repeated_spread": repeated_spread(questions),
        "slot_effect": slot_effect(first + second - 1),
        "p_value_any_slot": any_slot_test(first, 1 - second, seed=seed),
    }
