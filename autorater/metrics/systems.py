"""Models instead of responses: how often one wins against another, by a judge, by people's votes and by Elo.

    judged     mean over pairs of Pr[the model's response is preferred] by the judge
    voted      the same by the votes, a tie counting one half
    expected   1 / (1 + 10^((Elo_opponent − Elo_model) / 400))
    mismatch   |(judged − expected) / max(expected, 1 − expected)|, the Mismatch Degree of CHARM (arXiv 2504.10045)

A judge that is calibrated on pairs is calibrated on models; the converse is not true, so this view adds to the metrics
of single pairs and replaces none. It shows what they hide: a judge that is fond of one model's style.

Intervals resample pairs, or whole prompts where `clusters` says so. Deliberately left out: where Elo scores come from
(`autorater.charm.elo`), and mending a mismatch (`autorater.charm.offset`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from autorater.metrics.intervals import Mean, bootstrap
from autorater.metrics.validation import check_equal_lengths, check_probabilities, check_scores


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + e^−x) without overflow, with full relative precision for very negative x; the shape of x."""
    z = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, z) / (1 + z)


def expected_win_rate(elo_over: ArrayLike, elo_reference: ArrayLike) -> float | np.ndarray:
    """Probability that a model wins against another by their Elo scores, a tie counting one half.

    Args:
        elo_over: Elo of the (over-valued) model, a number or any array of numbers.
        elo_reference: Elo of the reference model; broadcast against `elo_over`.

    Returns:
        1 / (1 + 10^((elo_reference − elo_over) / 400)), in [0, 1]: a float for two numbers, else an array.

    Raises:
        ValueError: empty, not finite, not numbers, or shapes that do not broadcast.

    Example:
        >>> round(expected_win_rate(1216, 1273), 4)  # Gemma-2-9b-it-SimPO against GPT-4o-mini
        0.4187
    """
    over, reference = _broadcast(check_scores, elo_over=elo_over, elo_reference=elo_reference)
    return _like_input(sigmoid((over - reference) * (np.log(10) / 400)))


def mismatch_degree(empirical: ArrayLike, expected: ArrayLike) -> float | np.ndarray:
    """How far a win rate is from the one that people's preferences imply: |(P̂ − P) / max(P, 1 − P)|.

    Args:
        empirical: Win rate P̂ by a reward model or judge, in [0, 1]; a number or any array of numbers.
        expected: Win rate P by Elo or votes, in [0, 1]; broadcast against `empirical`.

    Returns:
        In [0, 1]; 0 is a perfect match. The same from the side of the opponent. A float for two numbers, else an
        array. The sign is not in it: the model is over-valued where `empirical` is the larger.

    Raises:
        ValueError: empty, NaN, not numbers, outside [0, 1], or shapes that do not broadcast.
    """
    empirical, expected = _broadcast(check_probabilities, empirical=empirical, expected=expected)
    return _like_input(np.abs(empirical - expected) / np.maximum(expected, 1 - expected))


def _broadcast(check, **given: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Two checked float64 arrays of one shape."""
    shapes = [np.shape(values) for values in given.values()]
    checked = [check(name, np.ravel(values)).reshape(np.shape(values)) for name, values in given.items()]
    try:
        return np.broadcast_arrays(*checked)
    except ValueError:
        (first, second), (shape, other) = given, shapes
        raise ValueError(f"{second} has shape {other} and {first} has shape {shape}; equal is wanted") from None


def _like_input(values: np.ndarray) -> float | np.ndarray:
    return values if values.ndim else float(values)


@dataclass(frozen=True)
class WinRate:
    """One model against another over N pairs. Rates are of `model` winning, in [0, 1]; None where they are not known.

    Attributes:
        model: The first of the two by name.
        opponent: The second.
        n_pairs: Pairs between them, in either order.
        judged: Mean judged probability; `judged_low` and `judged_high` are its 95 % interval.
        voted: Mean label, with its interval.
        expected: By Elo.
        gap: judged − voted, with its interval: both are means over the same pairs.
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
    def target(self) -> float | None:
        """What the judged rate should be: by Elo where it is known, else by the votes."""
        return self.voted if self.expected is None else self.expected

    @property
    def mismatch(self) -> float | None:
        """Mismatch Degree of the judged rate to the target."""
        return None if self.target is None else mismatch_degree(self.judged, self.target)


def win_rates(
    p_sym: ArrayLike,
    labels: ArrayLike | None,
    model_a: Sequence[str],
    model_b: Sequence[str],
    *,
    elo: Mapping[str, float] | None = None,
    clusters: ArrayLike | None = None,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> list[WinRate]:
    """Win rates of every pair of models that met.

    Args:
        p_sym: shape (N,), Pr[B preferred] by the judge, in [0, 1].
        labels: shape (N,), share of votes for B, in [0, 1]; None if there are no votes.
        model_a: N names: what wrote response A. A pair of a model with itself has no row.
        model_b: N names: what wrote response B.
        elo: Elo score by model; rows then have `expected`.
        clusters: shape (N,), pairs with equal values are resampled together (the prompt, say).
        n_bootstrap: Rounds of the bootstrap; 0 for no intervals.
        seed: Seed of the bootstrap.

    Returns:
        A row for every two models with at least one pair, sorted by name. A single pair has no interval.

    Raises:
        ValueError: empty input, unequal lengths, NaN, values outside [0, 1], a model without a name or without Elo.
    """
    judged = check_probabilities("p_sym", p_sym)
    voted = None if labels is None else check_probabilities("labels", labels)
    names_a, names_b = _check_names("model_a", model_a), _check_names("model_b", model_b)
    given = {"labels": voted, "model_a": names_a, "model_b": names_b, "clusters": clusters}
    check_equal_lengths(p_sym=judged, **{name: column for name, column in given.items() if column is not None})
    if elo is not None:
        check_rated(elo, {*names_a, *names_b})

    turned = names_b < names_a  # a row tells of the first name's wins, Pr[B preferred] where that is B
    first, second = np.where(turned, names_b, names_a), np.where(turned, names_a, names_b)
    judged = np.where(turned, judged, 1 - judged)
    voted = None if voted is None else np.where(turned, voted, 1 - voted)
    rows = []
    for model, opponent in sorted({pair for pair in zip(first, second, strict=True) if pair[0] != pair[1]}):
        here = (first == model) & (second == opponent)
        columns = {"judged": judged[here]}
        if voted is not None:
            columns |= {"voted": voted[here], "gap": judged[here] - voted[here]}
        means = {name: float(column.mean()) for name, column in columns.items()}
        spread = {}
        if n_bootstrap:
            statistics = {name: Mean(column) for name, column in columns.items()}
            spread = bootstrap(statistics, n_bootstrap, seed, None if clusters is None else np.asarray(clusters)[here])
        expected = None if elo is None else expected_win_rate(elo[model], elo[opponent])
        rows.append(WinRate(model, opponent, int(here.sum()), expected=expected, **means, **spread))
    return rows


def correlations(scores: Mapping[str, float], elo: Mapping[str, float]) -> dict[str, float]:
    """Do the models that a judge scores high have a high Elo?

    Args:
        scores: Mean score by model, at least two models.
        elo: Elo by model; at least those of `scores`.

    Returns:
        `pearson` and `spearman` over the models of `scores`, in [−1, 1]; equal scores share the mean of their ranks.
        Both are left out where all scores or all Elo are equal.

    Raises:
        ValueError: fewer than two models, a model without Elo, scores that are not finite.
    """
    check_rated(elo, scores)
    if len(scores) < 2:
        raise ValueError(f"{len(scores)} models; at least 2 are wanted for a correlation")
    x = check_scores("scores", list(scores.values()))
    y = check_scores("elo", [elo[model] for model in scores])
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return {}
    return {"pearson": _pearson(x, y), "spearman": _pearson(_ranks(x), _ranks(y))}


def check_rated(elo: Mapping[str, float], models: Sequence[str] | set[str] | Mapping[str, float]) -> None:
    """Every model has an Elo score.

    Raises:
        ValueError: names the models that have none, and those that have one.
    """
    missing = sorted(set(models) - set(elo))
    if missing:
        raise ValueError(f"no Elo for {', '.join(map(repr, missing))}; there is one for {', '.join(sorted(elo))}")


def _check_names(name: str, values: Sequence[str]) -> np.ndarray:
    for index, value in enumerate(values):
        if not isinstance(value, str) or not value:
            raise ValueError(f"{name}[{index}] is {value!r}; the name of a model is wanted")
    return np.array(values, dtype=object)


def _pearson(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.corrcoef(x, y)[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks in which equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]
