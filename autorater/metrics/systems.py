"""Win rates of models: how often one wins against another, by a judge, by votes and by Elo.

    judged     mean over pairs, weighted if they have weights, of Pr[the model's response is preferred] by the judge
    voted      the same by the votes, a tie counting one half
    expected   1 / (1 + 10^((Elo_opponent − Elo_model) / 400))
    mismatch   |(judged − expected) / max(expected, 1 − expected)|, the Mismatch Degree of CHARM (arXiv 2504.10045)

A judge that is calibrated on models need not be calibrated on pairs, but win rates reveal one that favours a model's
style. Deliberately left out: the source of Elo scores (`autorater.charm.elo`) and the correction of a mismatch
(`autorater.charm.offset`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit

from autorater.metrics.clusters import cluster_numbers, rows_by_number
from autorater.metrics.intervals import Mean, Share, bootstrap, point_estimates
from autorater.metrics.validation import check_equal_lengths, check_numbers, check_probabilities, check_weights


def expected_win_rate(elo_over: ArrayLike, elo_reference: ArrayLike) -> float | np.ndarray:
    """Probability 1 / (1 + 10^((elo_reference − elo_over) / 400)) that a model wins by Elo, a tie counting one half.

    Args:
        elo_over: Elo of the (over-valued) model, a number or any array of numbers.
        elo_reference: Elo of the reference model; broadcast against `elo_over`.

    Returns:
        In [0, 1]: a float for two numbers, else an array.

    Raises:
        ValueError: empty, not finite, not numbers, or shapes that do not broadcast.

    Example:
        >>> round(expected_win_rate(1216, 1273), 4)  # Gemma-2-9b-it-SimPO against GPT-4o-mini
        0.4187
    """
    over, reference = _checked(check_numbers, elo_over=elo_over, elo_reference=elo_reference)
    rate = expit((over - reference) * (np.log(10) / 400))
    return rate if rate.ndim else float(rate)


def mismatch_degree(empirical: ArrayLike, expected: ArrayLike) -> float | np.ndarray:
    """Relative distance of a win rate to the one that people's preferences imply: |(P̂ − P) / max(P, 1 − P)|.

    Args:
        empirical: Win rate P̂ by a reward model or judge, in [0, 1]; a number or any array of numbers.
        expected: Win rate P by Elo or votes, in [0, 1]; broadcast against `empirical`.

    Returns:
        In [0, 1]; 0 is a perfect match. It is the same from the opponent's side and has no sign: the model is
        over-valued if `empirical` is the larger. A float for two numbers, else an array.

    Raises:
        ValueError: empty, NaN, not numbers, outside [0, 1], or shapes that do not broadcast.
    """
    empirical, expected = _checked(check_probabilities, empirical=empirical, expected=expected)
    degree = np.abs(empirical - expected) / np.maximum(expected, 1 - expected)
    return degree if degree.ndim else float(degree)


def _checked(check: Callable, **arrays: ArrayLike) -> Iterator[np.ndarray]:
    """Arrays of any shape, checked; NumPy raises a `ValueError` if their shapes do not broadcast."""
    return (check(name, np.ravel(values)).reshape(np.shape(values)) for name, values in arrays.items())


@dataclass(frozen=True)
class WinRate:
    """One model against another, which follows it by name, over their pairs in either order.

    `judged` is the mean judged probability that `model` wins, `voted` the mean label, `expected` the rate by Elo, each
    in [0, 1]; `gap` is judged − voted over the same pairs; `_low` and `_high` are 95 % intervals. None if unknown.
    """

    model: str
    opponent: str
    n_pairs: int
    judged: float
    judged_low: float | None = None
    judged_high: float | None = None
    voted: float | None = None
    voted_low: float | None = None
    voted_high: float | None = None
    gap: float | None = None
    gap_low: float | None = None
    gap_high: float | None = None
    expected: float | None = None

    @property
    def mismatch(self) -> float | None:
        """Mismatch Degree of the judged rate to the expected one."""
        return None if self.expected is None else mismatch_degree(self.judged, self.expected)


def win_rates(
    p_sym: ArrayLike,
    labels: ArrayLike | None,
    model_a: Sequence[str],
    model_b: Sequence[str],
    *,
    elo: Mapping[str, float] | None = None,
    clusters: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    n_bootstrap: int = 1000,
) -> list[WinRate]:
    """Win rates of every two models with a pair between them, sorted by name; a single pair has no interval.

    Args:
        p_sym: shape (N,), Pr[B preferred] by the judge, in [0, 1].
        labels: shape (N,), share of votes for B, in [0, 1]; None without votes.
        model_a, model_b: N names of the models that wrote each response. A model against itself has no row.
        elo: Elo score by model; rows then have `expected`.
        clusters: shape (N,), pairs with equal values (such as one prompt) are resampled together.
        weights: shape (N,), at least 0, how much each pair counts; default 1. Models with pairs of weight 0 only
            between them have no row.
        n_bootstrap: Rounds of the bootstrap; 0 for no intervals.

    Raises:
        ValueError: empty input, unequal lengths, NaN, values outside [0, 1], a model without a name or without Elo.
    """
    judged = check_probabilities("p_sym", p_sym)
    voted = None if labels is None else check_probabilities("labels", labels)
    names_a, names_b = _check_names("model_a", model_a), _check_names("model_b", model_b)
    clusters = None if clusters is None else cluster_numbers(clusters)
    check_equal_lengths(p_sym=judged, labels=voted, model_a=names_a, model_b=names_b, clusters=clusters)
    weights = check_weights(weights, judged.size)
    if elo is not None:
        check_rated(elo, {*names_a, *names_b})

    swapped = names_b < names_a  # rates are of the first name winning, and that model may have written B
    first, second = np.where(swapped, names_b, names_a), np.where(swapped, names_a, names_b)
    judged = np.where(swapped, judged, 1 - judged)
    voted = None if voted is None else np.where(swapped, voted, 1 - voted)
    rows = []
    compared = list(zip(first.tolist(), second.tolist(), strict=True))
    for here in rows_by_number(cluster_numbers(compared)):
        model, opponent = compared[here[0]]
        if model == opponent or not weights[here].any():
            continue
        columns = {"judged": judged[here]}
        if voted is not None:
            columns |= {"voted": voted[here], "gap": judged[here] - voted[here]}
        statistics = {
            name: (Share if name == "voted" else Mean)(weights[here] * column, weights[here])
            for name, column in columns.items()
        }
        row = point_estimates(statistics)
        if n_bootstrap:
            row |= bootstrap(statistics, n_bootstrap, clusters=None if clusters is None else clusters[here])
        expected = None if elo is None else expected_win_rate(elo[model], elo[opponent])
        rows.append(WinRate(model, opponent, here.size, expected=expected, **row))
    return rows


def correlations(scores: Mapping[str, float], elo: Mapping[str, float]) -> dict[str, float]:
    """`pearson` and `spearman` correlation between mean scores and Elo; empty if all scores or all Elo are equal.

    A `ValueError` for fewer than two models, one without Elo, or scores that are not finite. Other models in `elo` are
    ignored.
    """
    from scipy.stats import pearsonr, spearmanr  # half a second

    check_rated(elo, scores)
    if len(scores) < 2:
        raise ValueError(f"{len(scores)} models; expected at least 2 for a correlation")
    x = check_numbers("scores", list(scores.values()))
    y = check_numbers("elo", [elo[model] for model in scores])
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return {}
    return {"pearson": float(pearsonr(x, y).statistic), "spearman": float(spearmanr(x, y).statistic)}


def check_rated(elo: Mapping[str, float], models: Sequence[str] | set[str] | Mapping[str, float]) -> None:
    """Raises a `ValueError` if a model has no Elo score."""
    missing = sorted(set(models) - set(elo))
    if missing:
        raise ValueError(f"no Elo for {', '.join(map(repr, missing))}; there is one for {', '.join(sorted(elo))}")


def _check_names(name: str, values: Sequence[str]) -> np.ndarray:
    for index, value in enumerate(values):
        if not isinstance(value, str) or not value:
            raise ValueError(f"{name}[{index}] is {value!r}; expected the name of a model")
    return np.array(values, dtype=object)
