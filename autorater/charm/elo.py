"""Elo: how strong models are by people's votes, read from a table or fitted.

    Pr[b beats a] = 1 / (1 + 10^((Elo_a − Elo_b) / 400)),        a tie counting half a win each way

A table is a leaderboard file. A fit is Bradley–Terry by maximum likelihood: scikit-learn's logistic regression without
intercept or penalty, on one column a model (+1 for B, −1 for A), every pair weighted by its number of votes. Only
differences of Elo mean anything; the models of a fit have the mean 1000.

The intervals are those of Chatbot Arena (arXiv 2403.04132): normal, from the sandwich covariance H⁺ (Σ_c g_c g_cᵀ) H⁺;
here the gradient g_c is summed over all votes on a prompt, because these hang together. An interval is that of a model
against the mean of all.

Deliberately left out: Elo updated game by game, which depends on the order of the games.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

import numpy as np

from autorater.data.errors import DataError
from autorater.data.pairs import Pair
from autorater.metrics.systems import sigmoid

SCALE = 400 / np.log(10)
"""Elo points a unit of log odds."""
MEAN = 1000.0

_MODEL_COLUMNS = ("model", "model_name", "name", "key")
_ELO_COLUMNS = ("elo", "rating", "arena_score", "arena score", "elo_rating", "score")
_QUANTILE = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True)
class Rating:
    """Elo of a model, with its 95 % interval where it was fitted, and the number of votes behind it."""

    elo: float
    low: float | None = None
    high: float | None = None
    n_votes: int | None = None


def elo_scores(ratings: Mapping[str, Rating]) -> dict[str, float]:
    """Elo by model."""
    return {model: rating.elo for model, rating in ratings.items()}


def load_elo(source: str | os.PathLike[str]) -> dict[str, Rating]:
    """Reads a table of Elo scores, such as an export of a Chatbot Arena leaderboard.

    Args:
        source: A `.csv` with a header, or a `.json` that is a list of objects or one object {model: Elo}. The model is
            in the first column there is of `model`, `model_name`, `name`, `key`; Elo in the first of `elo`, `rating`,
            `arena_score`, `arena score`, `elo_rating`, `score`; upper and lower case are the same. Other columns are
            not read.

    Returns:
        Rating by model, in the order of the file.

    Raises:
        DataError: If the file is not there, is not such a table, has no row, a model twice, or an Elo that is not a
            finite number; names the row.
    """
    path = Path(source)
    readers = {".csv": _csv_rows, ".json": _json_rows}
    if path.suffix.lower() not in readers:
        raise DataError(f"{path}: unknown kind of table; expected a name that ends in .csv or .json")
    ratings: dict[str, Rating] = {}
    try:
        for place, row in readers[path.suffix.lower()](path):
            named = {str(column).strip().lower(): value for column, value in row.items()}
            model = str(_first(named, _MODEL_COLUMNS, place)).strip()
            elo = _first(named, _ELO_COLUMNS, place)
            if not model:
                raise DataError(f"{place}: the model has no name")
            if model in ratings:
                raise DataError(f"{place}: {model!r} is there twice; expected every model once")
            ratings[model] = Rating(_finite(elo, place))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}; expected a table of Elo scores") from error
    except DataError as error:
        raise DataError(f"{path}: {error}") from error.__cause__
    if not ratings:
        raise DataError(f"{path}: no rows; expected at least one model")
    return ratings


def fit_elo(pairs: Sequence[Pair]) -> dict[str, Rating]:
    """Elo of the models that wrote the responses, by Bradley–Terry from the votes.

    Args:
        pairs: N pairs with `model_a` and `model_b`. A pair whose number of votes is not known counts as one vote; a
            pair of a model with itself says nothing and is not used. Pairs with the same prompt are one cluster.

    Returns:
        Rating by model, the strongest first; their mean is 1000. With a single prompt there are no intervals.

    Raises:
        ValueError: If a pair has no model, fewer than two models met, or no finite Elo fits the votes: some models
            never lost to the others, or never met them.
        ImportError: If scikit-learn is not installed.
    """
    for pair in pairs:
        if not (pair.model_a and pair.model_b):
            raise ValueError(f"pair {pair.id!r} has no model_a or no model_b; both are wanted to fit Elo")
    met = [pair for pair in pairs if pair.model_a != pair.model_b]
    models = sorted({model for pair in met for model in (pair.model_a, pair.model_b)})
    if not models:
        raise ValueError(f"in {len(pairs)} pairs no two models met; at least 2 are wanted to fit Elo")
    first, second = (
        np.array([models.index(model) for model in side])
        for side in zip(*((pair.model_a, pair.model_b) for pair in met), strict=True)
    )
    votes = np.array([pair.n_votes or 1 for pair in met], dtype=float)
    labels = np.array([pair.label for pair in met])
    wins = np.zeros((len(models), len(models)))  # wins[i, j]: votes for i against j
    np.add.at(wins, (second, first), votes * labels)
    np.add.at(wins, (first, second), votes * (1 - labels))
    _check_connected(wins, models)

    strength = _bradley_terry(wins)
    design = np.zeros((len(met), len(models)))
    rows = np.arange(len(met))
    design[rows, second], design[rows, first] = 1, -1
    prompts = np.unique([pair.prompt for pair in met], return_inverse=True)[1]
    half = SCALE * _QUANTILE * _standard_errors(design, votes, labels, sigmoid(design @ strength), prompts)
    elo = MEAN + SCALE * strength
    n_votes = wins.sum(axis=0) + wins.sum(axis=1)
    ratings = {}
    for i in np.argsort(-elo, kind="stable"):
        interval = (None, None) if np.isnan(half[i]) else (float(elo[i] - half[i]), float(elo[i] + half[i]))
        ratings[models[i]] = Rating(float(elo[i]), *interval, n_votes=round(n_votes[i]))
    return ratings


def bradley_terry_elo(wins: np.ndarray) -> np.ndarray:
    """Elo of K models from what they won against each other, shape (K,), of mean 1000.

    Args:
        wins: shape (K, K), wins[i, j] of model i against model j: votes, or exact win rates; 0 on the diagonal.

    Raises:
        ValueError: If no finite Elo fits; models are named by their numbers.
        ImportError: If scikit-learn is not installed.
    """
    wins = np.asarray(wins, dtype=float)
    _check_connected(wins, [str(i) for i in range(len(wins))])
    return MEAN + SCALE * _bradley_terry(wins)


# The fit.


def _check_connected(wins: np.ndarray, models: list[str]) -> None:
    """A finite maximum exists only if every model has beaten every other one, if only by way of others (Ford 1957)."""
    reached = (wins > 0) | np.eye(len(models), dtype=bool)
    for k in range(len(models)):
        reached |= reached[:, k : k + 1] & reached[k]
    for beaten in reached:
        if not beaten.all():
            group = [models[j] for j in np.flatnonzero(beaten)]
            others = [models[j] for j in np.flatnonzero(~beaten)]
            raise ValueError(
                f"no finite Elo fits: {_names(group)} never won a vote against {_names(others)}, directly or by way "
                "of others; more votes are wanted, or fewer models"
            )


def _names(models: list[str]) -> str:
    return ", ".join(map(repr, models))


def _bradley_terry(wins: np.ndarray) -> np.ndarray:
    """Strengths in logits, shape (K,), of mean 0: starting there, the fit never leaves it."""
    from sklearn.linear_model import LogisticRegression

    winner, loser = np.nonzero(wins)
    design = np.zeros((len(winner), len(wins)))
    rows = np.arange(len(winner))
    design[rows, winner], design[rows, loser] = 1, -1
    weights = wins[winner, loser]
    # a fit wants two classes: every row is told twice, half of its weight each way round
    fit = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10, max_iter=10_000)
    fit.fit(np.concatenate([design, -design]), np.repeat([1, 0], len(rows)), np.tile(weights / 2, 2))
    return fit.coef_[0] - fit.coef_[0].mean()


def _standard_errors(
    design: np.ndarray, votes: np.ndarray, labels: np.ndarray, chances: np.ndarray, clusters: np.ndarray
) -> np.ndarray:
    """Cluster-robust standard errors of the strengths, shape (K,); NaN with one cluster.

    Args:
        design: shape (N, K): +1 for B, −1 for A.
        votes, labels, chances: shape (N,): weight, observed and fitted probability of B.
        clusters: shape (N,), numbered from 0.
    """
    n_clusters = int(clusters.max()) + 1
    if n_clusters < 2:
        return np.full(design.shape[1], np.nan)
    gradients = np.zeros((n_clusters, design.shape[1]))
    np.add.at(gradients, clusters, design * (votes * (labels - chances))[:, None])
    information = design.T @ (design * (votes * chances * (1 - chances))[:, None])
    bread = np.linalg.pinv(information, rcond=1e-10, hermitian=True)  # singular: all strengths may shift together
    correction = n_clusters / (n_clusters - 1)
    return np.sqrt(np.diag(bread @ (gradients.T @ gradients) @ bread) * correction)


# The tables.


def _csv_rows(path: Path) -> Iterable[tuple[str, dict]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            for row in (reader := csv.DictReader(file, strict=True)):
                yield f"line {reader.line_num}", {k: v for k, v in row.items() if k is not None}
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(f"not CSV ({error}); expected a header with the columns model and elo") from error


def _json_rows(path: Path) -> Iterable[tuple[str, dict]]:
    try:
        table = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise DataError(f"not JSON ({error}); expected a list of objects, or one object {{model: Elo}}") from error
    if isinstance(table, dict):
        table = [{"model": model, "elo": elo} for model, elo in table.items()]
    if not isinstance(table, list):
        raise DataError(f"got {type(table).__name__}; expected a list of objects, or one object {{model: Elo}}")
    for index, row in enumerate(table):
        if not isinstance(row, dict):
            raise DataError(f"entry {index} (counted from 0): got {row!r}; expected an object with model and elo")
        yield f"entry {index} (counted from 0)", row


def _first(row: Mapping[str, object], columns: tuple[str, ...], place: str) -> object:
    for column in columns:
        if column in row:
            return row[column]
    raise DataError(f"{place}: none of the columns {', '.join(columns)}; there are {', '.join(row)}")


def _finite(value: object, place: str) -> float:
    try:
        number = float("nan") if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not np.isfinite(number):
        raise DataError(f"{place}: Elo is {value!r}; a finite number is wanted")
    return number
