"""Elo: the strength of models by people's votes, read from a table or fitted.

    Pr[b beats a] = 1 / (1 + 10^((Elo_a − Elo_b) / 400)),        a tie counts half a win for each model

A table is a leaderboard file. A fit is Bradley–Terry by maximum likelihood: scikit-learn's logistic regression without
intercept or penalty, with one column per model (+1 for B, −1 for A) and pairs weighted by their number of votes times
their `weight`. Only differences of Elo have a meaning; the models of a fit have the mean 1000.

The intervals, for the difference between a model and the mean of all, are those of Chatbot Arena (arXiv 2403.04132):
normal, from the sandwich covariance H⁺ (Σ_c g_c g_cᵀ) H⁺, with the gradient g_c summed over all votes on a prompt.
"""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.sparse.csgraph import shortest_path
from scipy.special import expit, ndtri

from autorater.data.errors import DataError, located
from autorater.data.fields import bad_value, name_in, number_of
from autorater.data.pairs import Pair
from autorater.data.tables import Rows, iter_rows
from autorater.metrics.clusters import cluster_numbers

SCALE = 400 / np.log(10)
"""Elo points per unit of log odds."""
MEAN = 1000.0

_MODEL_COLUMNS = ("model", "model_name", "name", "key")
_ELO_COLUMNS = ("elo", "rating", "arena_score", "arena score", "elo_rating", "score")


@dataclass(frozen=True)
class Rating:
    """Elo of a model; of a fit also its 95 % interval and the number of votes on the model, without weights."""

    elo: float
    low: float | None = None
    high: float | None = None
    n_votes: int | None = None


def load_elo(source: str | os.PathLike[str]) -> dict[str, Rating]:
    """Ratings in a table of Elo scores, such as an export of a Chatbot Arena leaderboard, in the order of the file.

    Args:
        source: A file of `autorater.data.tables`, or a `.json` file that is one object {model: Elo}. The model is in
            the first existing column of `model`, `model_name`, `name`, `key`; Elo is in the first of `elo`, `rating`,
            `arena_score`, `arena score`, `elo_rating`, `score`. Upper and lower case are equal. Other columns are
            ignored.

    Raises:
        DataError: If the file does not exist, is not such a table, has no row, contains a model twice, or an Elo is
            not a finite number; names the row.
    """
    ratings: dict[str, Rating] = {}
    for place, row in _rows(Path(source)):
        with located(f"{source}: {place}"):
            row = {str(column).strip().lower(): value for column, value in row.items()}
            model_column, elo_column = (_first(row, columns) for columns in (_MODEL_COLUMNS, _ELO_COLUMNS))
            model, elo = (name_in(row, model_column) or "").strip(), number_of(row[elo_column])
            if not model or model in ratings:
                raise bad_value(model_column, model, "the name of a model that no earlier row has")
            if not np.isfinite(elo):
                raise bad_value(elo_column, row[elo_column], "a finite number")
            ratings[model] = Rating(elo)
    return ratings


def fit_elo(pairs: Sequence[Pair]) -> dict[str, Rating]:
    """Rating of the models that wrote the responses, by Bradley–Terry from the votes; the strongest first, mean 1000.

    Args:
        pairs: N pairs with `model_a` and `model_b`. A pair with an unknown number of votes counts as one vote; a pair
            of a model with itself, or of weight 0, is ignored. With a single prompt there are no intervals.

    Raises:
        DataError: If a pair has no model, no two models were compared, or no finite Elo fits the votes: some models
            never lost to the others, or were never compared with them.
        ImportError: If scikit-learn is not installed.
    """
    for pair in pairs:
        if not (pair.model_a and pair.model_b):
            raise DataError(f"pair {pair.id!r} has no model_a or no model_b; fitting Elo requires both")
    compared = [pair for pair in pairs if pair.model_a != pair.model_b and pair.weight != 0]
    if not compared:
        raise DataError(
            f"none of {len(pairs)} pairs compares two different models with a weight above 0; fitting Elo requires at "
            "least one"
        )
    names, index = np.unique([(pair.model_a, pair.model_b) for pair in compared], return_inverse=True)
    models, (first, second) = names.tolist(), index.reshape(-1, 2).T
    counts = np.array([pair.n_votes or 1 for pair in compared])
    votes = counts * np.array([1.0 if pair.weight is None else pair.weight for pair in compared])
    labels = np.array([pair.label for pair in compared])
    wins = np.zeros((len(models), len(models)))  # wins[i, j]: votes for i against j
    np.add.at(wins, (second, first), votes * labels)
    np.add.at(wins, (first, second), votes * (1 - labels))
    _check_connected(wins, models)

    strength = _bradley_terry(wins)
    design = _design(second, first, len(models))
    prompts = cluster_numbers([pair.prompt for pair in compared])
    half = SCALE * ndtri(0.975) * _standard_errors(design, votes, labels, expit(design @ strength), prompts)
    elo = MEAN + SCALE * strength
    n_votes = np.bincount(np.concatenate([first, second]), np.tile(counts, 2))
    ratings = {}
    for i in np.argsort(-elo, kind="stable"):
        interval = (None, None) if np.isnan(half[i]) else (float(elo[i] - half[i]), float(elo[i] + half[i]))
        ratings[models[i]] = Rating(float(elo[i]), *interval, n_votes=round(n_votes[i]))
    return ratings


def bradley_terry_elo(wins: np.ndarray) -> np.ndarray:
    """Elo of K models, shape (K,), mean 1000, from their wins against each other, shape (K, K).

    `wins[i, j]` of model i against model j are votes or exact win rates, 0 on the diagonal. Errors as in `fit_elo`;
    models are named by their numbers.
    """
    wins = np.asarray(wins, dtype=float)
    _check_connected(wins, [str(i) for i in range(len(wins))])
    return MEAN + SCALE * _bradley_terry(wins)


def _check_connected(wins: np.ndarray, models: list[str]) -> None:
    """A finite maximum exists only if every model has beaten every other, directly or through others (Ford 1957)."""
    for beaten in np.isfinite(shortest_path(wins > 0, unweighted=True)):
        if not beaten.all():
            group, others = (", ".join(repr(models[i]) for i in np.flatnonzero(side)) for side in (beaten, ~beaten))
            raise DataError(
                f"no finite Elo fits: {group} never won a vote against {others}, directly or through other models; "
                "collect more votes or leave models out"
            )


def _design(winners: np.ndarray, losers: np.ndarray, n_models: int) -> np.ndarray:
    """shape (N, K): +1 for the winner, −1 for the loser."""
    one_hot = np.eye(n_models)
    return one_hot[winners] - one_hot[losers]


def _bradley_terry(wins: np.ndarray) -> np.ndarray:
    """Strengths in logits, shape (K,), with mean 0."""
    from sklearn.linear_model import LogisticRegression

    winners, losers = np.nonzero(wins)
    design, weights = _design(winners, losers, len(wins)), wins[winners, losers]
    # a fit requires two classes: every row is used twice, with half its weight and opposite signs
    fit = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10, max_iter=10_000)
    fit.fit(np.concatenate([design, -design]), np.repeat([1, 0], len(design)), np.tile(weights / 2, 2))
    return fit.coef_[0] - fit.coef_[0].mean()


def _standard_errors(
    design: np.ndarray, votes: np.ndarray, labels: np.ndarray, fitted: np.ndarray, clusters: np.ndarray
) -> np.ndarray:
    """Cluster-robust standard errors of the strengths, shape (K,); NaN with one cluster (numbered from 0)."""
    n_clusters = int(clusters.max()) + 1
    if n_clusters < 2:
        return np.full(design.shape[1], np.nan)
    gradients = np.zeros((n_clusters, design.shape[1]))
    np.add.at(gradients, clusters, design * (votes * (labels - fitted))[:, None])
    information = design.T @ (design * (votes * fitted * (1 - fitted))[:, None])
    inverse = np.linalg.pinv(information, rcond=1e-10, hermitian=True)  # singular: all strengths may shift together
    correction = n_clusters / (n_clusters - 1)
    return np.sqrt(np.diag(inverse @ (gradients.T @ gradients) @ inverse) * correction)


def _rows(path: Path) -> Rows:
    if path.suffix.lower() == ".json" and path.is_file():
        with suppress(ValueError):  # other JSON is a table, or `iter_rows` says what it is
            table = json.loads(path.read_text(encoding="utf-8-sig"))
            if isinstance(table, dict):
                return iter_rows([{"model": model, "elo": elo} for model, elo in table.items()])
    return iter_rows(path)


def _first(row: Mapping[str, object], columns: tuple[str, ...]) -> str:
    found = [column for column in columns if column in row]
    if not found:
        raise DataError(f"the columns are {', '.join(row)}; expected one of {', '.join(columns)}")
    return found[0]
