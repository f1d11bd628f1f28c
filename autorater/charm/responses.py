"""Responses of models to prompts, with or without scores of a reward model, and preferences between them."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from autorater.data.errors import DataError, UserError, located
from autorater.data.fields import Row, bad_value, check_unicode, given_in, number_of, text_in
from autorater.data.pairs import Pair
from autorater.data.tables import iter_rows


@dataclass(frozen=True, slots=True)
class Response:
    """One model's response to a prompt, which may be empty.

    `score` is a finite number that a file gives; responses that differ in nothing else are equal.
    """

    prompt: str
    model: str
    text: str
    score: float | None = field(default=None, compare=False)


Scores = Mapping[Response, float]
"""Scores of a reward model by response."""


@dataclass(frozen=True, slots=True)
class Preference:
    """The better and the worse of two responses to a prompt."""

    chosen: Response
    rejected: Response


def sides_of(pair: Pair) -> tuple[Response, Response]:
    """Response A and response B of a pair with named models."""
    return Response(pair.prompt, pair.model_a, pair.response_a), Response(pair.prompt, pair.model_b, pair.response_b)


def responses_of(pairs: Iterable[Pair]) -> list[Response]:
    """The distinct responses of pairs, in order of occurrence; `DataError` if a pair does not name both models."""
    distinct: dict[Response, None] = {}
    for pair in pairs:
        if not (pair.model_a and pair.model_b):
            raise DataError(f"pair {pair.id!r} has no model_a or no model_b; comparing models requires both")
        distinct |= dict.fromkeys(sides_of(pair))
    return list(distinct)


def voted_preferences(pairs: Iterable[Pair]) -> list[Preference]:
    """The preferences of the majorities; pairs without a majority are left out."""
    sides = [(sides_of(pair), pair.label) for pair in pairs if pair.label != 0.5]
    return [Preference(b, a) if label > 0.5 else Preference(a, b) for (a, b), label in sides]


def by_model(responses: Iterable[Response], scores: Scores) -> dict[str, dict[str, Response]]:
    """Scored responses by model, then by prompt; of several responses to one prompt, the first."""
    grouped: dict[str, dict[str, Response]] = {}
    for response in responses:
        if response in scores:
            grouped.setdefault(response.model, {}).setdefault(response.prompt, response)
    return grouped


def matchups(
    responses: Mapping[str, Mapping[str, Response]], model: str, opponent: str
) -> list[tuple[Response, Response]]:
    """Responses of two models to the prompts that both answered; `UserError` if a model has no responses."""
    if missing := [name for name in (model, opponent) if name not in responses]:
        raise UserError(f"no responses by {missing[0]!r}; there are responses by {', '.join(sorted(responses))}")
    others = responses[opponent]
    return [(response, others[prompt]) for prompt, response in responses[model].items() if prompt in others]


def scores_of(matchups: Sequence[tuple[Response, Response]], scores: Scores) -> np.ndarray:
    """The scores of both sides of N matchups, shape (2, N)."""
    return np.array([[scores[response] for response in both] for both in matchups]).T


def load_responses(source: str | os.PathLike[str]) -> list[Response]:
    """Reads responses with the columns `prompt`, `model`, `response` and optional `score`, finite or null.

    Returns:
        At least one response, in the order of the source, a file of `autorater.data.tables`. Blank ones are kept.

    Raises:
        DataError: If the source cannot be read, has no row, or a row is a duplicate or no response; names the row.
    """
    responses: dict[Response, None] = {}
    for place, row in iter_rows(source):
        with located(f"{os.fspath(source)}: {place}"):
            response = _response(row)
            if response in responses:
                raise bad_value("response", response.text, f"no duplicate of an earlier row by {response.model!r}")
            responses[response] = None
    return list(responses)


def _response(row: Row) -> Response:
    for column in ("prompt", "model", "response"):
        if column not in row:
            raise DataError(f"column {column!r} is missing; expected it among {list(row)}")
    text, score = row["response"], given_in(row, "score")
    if not isinstance(text, str):
        raise bad_value("response", text, "text, empty or not")
    if score is not None and not np.isfinite(number_of(score)):
        raise bad_value("score", score, "a finite number, or null if there is no score yet")
    return Response(
        text_in(row["prompt"], "prompt"),
        text_in(row["model"], "model"),
        check_unicode(text, "response"),
        None if score is None else number_of(score),
    )
