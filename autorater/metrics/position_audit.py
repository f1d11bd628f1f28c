"""Position metrics of an audit, as flat keys with intervals and tests; answers may be repeated and may be missing.

An audit judges each pair in two presentations, each R times. Both answers are Pr[the side that may be favoured is
better]: the response shown second if the responses are swapped, or the one that another probe favours
(`autorater.audit.probes`). A repetition counts if both presentations have an answer in it; a pair is the mean of its
repetitions, and pairs are resampled and tested. Verdicts without a probability are 0, 1/2 (tie) and 1.

From Shi et al. (arXiv 2406.07791): the primacy share is the share of pairs that prefer the first position in both
orders, or in one with a tie in the other; the recency share likewise for the second. Their preference fairness equals
recency − primacy, in [−1, 1], 0 is fair.

With repetitions, the noise of a judge that samples its answers is separated from bias. Of R answers x_k in one order
and R answers y_k in the other, all as Pr[B better], the slot effect is the root of the mean over pairs of
(E x − E y)², estimated without bias from the products (x_k − y_k)(x_l − y_l), k ≠ l, whose noises are independent.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from autorater.metrics.agreement import verdicts
from autorater.metrics.chance_agreement import Kappa
from autorater.metrics.clusters import cluster_numbers
from autorater.metrics.intervals import Mean, Share, Statistic, bootstrap, point_estimates
from autorater.metrics.position import logit_shifts, position_statistics, position_terms, symmetrize
from autorater.metrics.preferences import trait_statistics
from autorater.metrics.significance import any_slot_test, sign_flip_test
from autorater.metrics.validation import DECIMALS, reject

_MARGINS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
_RATIOS = (1.0, 1.1, 1.5, 2.0, 4.0, float("inf"))
_QUANTILES = {"symmetry_deviation": (5, 25, 50, 75, 95), "symmetry_deviation_abs": (50, 95)}


def compared(answers: np.ndarray) -> np.ndarray:
    """Which repetitions of which pairs have both answers, shape (N, R)."""
    return ~np.isnan(answers).any(axis=1)


def pair_means(answers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean over the compared repetitions of the two answers, each (N,); NaN if no repetition has both."""
    counted = compared(answers)
    return tuple(_mean_of_repeats(np.where(counted, answers[:, side], np.nan)) for side in (0, 1))


def only_verdicts(*answers: np.ndarray) -> bool:
    """Whether all answers are 0, 1/2 or 1 (or NaN): the judge names a winner or a tie, and no probability."""
    return all(bool(np.isin(side[~np.isnan(side)], (0, 0.5, 1)).all()) for side in answers)


def audit_metrics(
    answers: ArrayLike,
    labels: ArrayLike | None = None,
    *,
    clusters: ArrayLike | None = None,
    traits: Mapping[str, ArrayLike] | None = None,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, float]:
    """All position metrics of one judge, as JSON-ready floats; undefined metrics have no key.

    Args:
        answers: shape (N, 2) or (N, 2, R): Pr[response shown second better] from order ab and from order ba, in R
            repetitions, in [0, 1]; NaN for a missing answer.
        labels: shape (N,), Pr[B preferred] by people, NaN if unknown.
        clusters: shape (N,), equal values for rows that show the same pair. They are resampled together, and one unit
            of the sign-flip tests. By default all rows differ.
        traits: by name, shape (N,), of response B less that of A, NaN if unknown, see `trait_statistics`; for answers
            in the orders ab and ba only.
        n_bootstrap: rounds of the bootstrap; 0 for no intervals.
        seed: of the bootstrap and of the permutations.

    Returns:
        - `n_pairs`, compared pairs (clusters); `n_repeated_rows`, rows that show a pair again, if there are any;
          `n_repeats`, R.
        - the keys of `position_bias`; `second_slot_share` = 1 − `first_slot_share`; `sharpness`, variance of the
          answers; `symmetry_deviation_q05` … `_q95` and `symmetry_deviation_abs_q50`, `_q95`, quantiles over pairs.
        - `primacy_share`, `recency_share`, `preference_fairness`.
        - `accuracy`, share of answers whose verdict is the label's, and `position_consistent_accuracy`, share of
          pairs that are right in both orders; over pairs whose label is not 1/2; a tie is wrong.
        - `cohen_kappa`, of the answers and the majority of the labels, see `cohen_kappa`.
        - `<trait>_effect` and, with labels, `<trait>_bias`, see `autorater.metrics.preferences`.
        - `p_value_verdicts` and `p_value_probabilities`, sign-flip tests that neither position is favoured, on the
          verdicts and on the deviation; `logit_shift`, see `logit_shifts`. The last two not for judges that give only
          verdicts.
        - with R > 1, over pairs with all their answers, and over presentations: `repetition_stability`, mean share of
          the commonest verdict among R answers, in [1/3, 1]; `repeated_flip_rate`, how often two of them differ in
          verdict, in [0, 1]; `repeated_spread`, root of their mean variance; `slot_effect`, in [0, 1], 0 if the
          estimate of its square is negative; `p_value_any_slot`, see `any_slot_test`, of one row a cluster.
        - `<key>_low` and `<key>_high`, 95 % over pairs, of every mean and share; a single pair has none.

    Raises:
        ValueError: another shape, values outside [0, 1], or no pair with both answers.
    """
    answers = _in_repeats(answers)
    kept = compared(answers).any(axis=1)
    if not kept.any():
        raise ValueError("no pair has an answer in both orders; expected at least one to compare")
    answers = answers[kept]
    counted = compared(answers)
    first, second = (np.where(counted, answers[:, side], np.nan) for side in (0, 1))
    n_rows, n_repeats = counted.shape
    members = np.arange(n_rows) if clusters is None else cluster_numbers(cluster_numbers(clusters)[kept])
    n_pairs = int(members.max()) + 1
    known = None if labels is None else np.asarray(labels, dtype=np.float64)[kept]
    differences = {name: np.asarray(trait, dtype=np.float64)[kept] for name, trait in (traits or {}).items()}
    statistics = _statistics(first, second, known, differences)

    report = {"n_pairs": float(n_pairs), "n_repeats": float(n_repeats)}
    if n_rows > n_pairs:
        report["n_repeated_rows"] = float(n_rows - n_pairs)
    values = point_estimates(statistics)
    report |= {name: value for name, value in values.items() if not np.isnan(value)}
    report |= _distributions(first, second) | _tests(first, second, members)
    complete = counted.all(axis=1)
    if n_repeats > 1 and complete.any():
        report |= repetition_metrics(answers[complete])
        once = answers[complete][np.unique(members[complete], return_index=True)[1]]
        report["p_value_any_slot"] = any_slot_test(once[:, 0], 1 - once[:, 1], seed=seed)
    if n_bootstrap:
        report |= bootstrap(statistics, n_bootstrap, seed, members)
    return report


def _in_repeats(answers: ArrayLike) -> np.ndarray:
    """The answers, checked, shape (N, 2, R)."""
    shape, answers = np.shape(answers), np.asarray(answers, dtype=np.float64)
    answers = answers[:, :, None] if answers.ndim == 2 else answers
    if answers.ndim != 3 or answers.shape[1] != 2 or answers.shape[2] == 0:
        raise ValueError(f"answers have shape {shape}; expected (pairs, 2) or (pairs, 2, repeats)")
    reject("answers", answers, (answers < 0) | (answers > 1), "a value in [0, 1]")
    return answers


def _statistics(
    first: np.ndarray, second: np.ndarray, labels: np.ndarray | None, traits: Mapping[str, np.ndarray]
) -> dict[str, Statistic]:
    """The means and shares over pairs, from the two answers, (N, R) each, NaN unless a repetition has both."""
    counted = ~np.isnan(first)
    terms = {name: _mean_of_repeats(np.where(counted, t, np.nan)) for name, t in position_terms(first, second).items()}
    both = verdicts(first) + verdicts(second)
    primacy, recency = (_mean_of_repeats(np.where(counted, sign * both > 0, np.nan)) for sign in (-1, 1))
    statistics = position_statistics(terms) | {
        "second_slot_share": Share(terms["decided"] - terms["first"], terms["decided"]),
        "primacy_share": Share(primacy),
        "recency_share": Share(recency),
        "preference_fairness": Mean(recency - primacy),
    }
    means = np.stack([_mean_of_repeats(first), _mean_of_repeats(second)])
    if labels is not None:
        right, right_twice, has_winner = _right(first, second, labels)
        if has_winner.any():
            statistics["accuracy"] = Share(right, has_winner)
            statistics["position_consistent_accuracy"] = Share(right_twice, has_winner)
            both_labels = np.nan_to_num(np.stack([labels, 1 - labels]), nan=0.5)
            statistics["cohen_kappa"] = Kappa(means, both_labels, (~np.isnan(labels)).astype(float))
    for name, trait in traits.items():
        statistics |= trait_statistics(name, trait, symmetrize(*means), labels)
    if not only_verdicts(first, second):
        statistics["logit_shift"] = Mean(_mean_of_repeats(logit_shifts(first, second)))
    return statistics


def _distributions(first: np.ndarray, second: np.ndarray) -> dict[str, float]:
    """Quantiles of the deviation over pairs, and variances; arguments as in `_statistics`."""
    deviations, report = first + second - 1, {}
    for name, values in (("symmetry_deviation", deviations), ("symmetry_deviation_abs", np.abs(deviations))):
        quantiles = np.quantile(_mean_of_repeats(values), np.array(_QUANTILES[name]) / 100)
        report |= {f"{name}_q{q:02d}": float(value) for q, value in zip(_QUANTILES[name], quantiles, strict=True)}
    report["sharpness"] = float(np.nanvar(np.stack([first, second])))
    report["sharpness_symmetrized"] = float(symmetrize(_mean_of_repeats(first), _mean_of_repeats(second)).var())
    return report


def _tests(first: np.ndarray, second: np.ndarray, members: np.ndarray) -> dict[str, float]:
    """The sign-flip tests over clusters, whose numbers are `members`; other arguments as in `_statistics`."""
    favoured = {"verdicts": (verdicts(first) + verdicts(second)) / 2}
    if not only_verdicts(first, second):
        favoured["probabilities"] = first + second - 1
    return {
        f"p_value_{name}": sign_flip_test(_mean_of_members(_mean_of_repeats(values), members))
        for name, values in favoured.items()
    }


def repetition_metrics(answers: np.ndarray) -> dict[str, float]:
    """The means of `audit_metrics` that require repetitions; answers of shape (N, 2, R), R >= 2, none missing."""
    first, second = answers[:, 0], answers[:, 1]
    n_repeats = answers.shape[2]
    n_ordered = n_repeats * (n_repeats - 1)
    repeated = np.concatenate([first, second])  # (2 N, R)
    counts = np.stack([(verdicts(repeated) == verdict).sum(axis=1) for verdict in (-1, 0, 1)])
    deviations = first + second - 1
    products = (deviations.sum(axis=1) ** 2 - (deviations**2).sum(axis=1)) / n_ordered
    return {
        "repetition_stability": float((counts.max(axis=0) / n_repeats).mean()),
        "repeated_flip_rate": float((1 - ((counts**2).sum(axis=0) - n_repeats) / n_ordered).mean()),
        "repeated_spread": float(np.sqrt(repeated.var(axis=1, ddof=1).mean())),
        "slot_effect": float(np.sqrt(max(0.0, products.mean()))),
    }


def deviation_by_margin(answers: np.ndarray) -> list[dict[str, float]]:
    """Position bias by |p_sym − 1/2|, in (`low`, `high`]; the lowest includes `low`; none is empty.

    Near ties contradict themselves easily; a bias far from 1/2 changes verdicts that matter. `answers`, shape
    (N, 2, R), have a compared repetition of every pair; p_sym is that of the means. Each has `n_pairs`, `consistency`,
    `symmetry_deviation_mean` and `symmetry_deviation_abs` as in `audit_metrics`.
    """
    return _strata(np.abs(symmetrize(*pair_means(answers)) - 0.5), _MARGINS, answers)


def deviation_by_length(answers: np.ndarray, length_a: np.ndarray, length_b: np.ndarray) -> list[dict[str, float]]:
    """The same by the ratio of the longer to the shorter response, whose lengths, shape (N,), are above 0."""
    return _strata(np.maximum(length_a, length_b) / np.minimum(length_a, length_b), _RATIOS, answers)


def _strata(values: np.ndarray, edges: Sequence[float], answers: np.ndarray) -> list[dict[str, float]]:
    terms = position_terms(answers[:, 0], answers[:, 1])
    terms = {
        "consistency": terms["consistent"],
        "symmetry_deviation_mean": terms["deviation"],
        "symmetry_deviation_abs": terms["absolute"],
    }
    counted = compared(answers)
    pairs = {name: _mean_of_repeats(np.where(counted, term, np.nan)) for name, term in terms.items()}
    indices = np.searchsorted(edges, values.round(DECIMALS)).clip(1) - 1
    return [
        {"low": edges[i], "high": edges[i + 1], "n_pairs": int((indices == i).sum())}
        | {name: float(of_pairs[indices == i].mean()) for name, of_pairs in pairs.items()}
        for i in np.unique(indices)
    ]


def _mean_of_members(values: np.ndarray, members: np.ndarray) -> np.ndarray:
    """The mean of every cluster; (N,) to (clusters,)."""
    return np.bincount(members, values) / np.bincount(members)


def _mean_of_repeats(values: np.ndarray) -> np.ndarray:
    """Mean over repetitions without the NaNs; NaN if all are NaN. (N, R) to (N,)."""
    present = ~np.isnan(values)
    total = np.where(present, values, 0).sum(axis=1)
    return np.divide(total, present.sum(axis=1), out=np.full(len(values), np.nan), where=present.any(axis=1))


def _right(first: np.ndarray, second: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shares of right answers and of repetitions right in both orders; whether the label has a winner; (N,) each."""
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
