"""Responses: what models wrote to prompts, one at a time, with or without the score of a reward model.

Reading files of them is in `autorater.data.loading`. Needs nothing but the standard library.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from autorater.data.errors import DataError
from autorater.data.fields import bad_value, check_unicode, given_in, number_of, text_in
from autorater.data.pairs import Pair
from autorater.data.tables import Row, json_rows, line_place


@dataclass(frozen=True, slots=True)
class Response:
    """One model's answer to a prompt.

    Attributes:
        prompt: What it answers.
        model: What wrote it.
        text: The response; may be empty, an answer that people can vote on too.
        score: What a reward model gives for it, any finite number, or None.
    """

    prompt: str
    model: str
    text: str
    score: float | None = None

    @property
    def key(self) -> tuple[str, str, str]:
        """What it is, whatever its score."""
        return self.prompt, self.model, self.text


def responses_of(pairs: Iterable[Pair]) -> list[Response]:
    """The responses of pairs that name their models, each once, in the order in which they are first seen.

    Raises:
        ValueError: If a pair has no `model_a` or `model_b`.
    """
    seen: dict[Response, None] = {}
    for pair in pairs:
        if not (pair.model_a and pair.model_b):
            raise ValueError(f"pair {pair.id!r} has no model_a or no model_b; both are wanted to tell models apart")
        seen[Response(pair.prompt, pair.model_a, pair.response_a)] = None
        seen[Response(pair.prompt, pair.model_b, pair.response_b)] = None
    return list(seen)


def by_model(responses: Iterable[Response]) -> dict[str, dict[str, Response]]:
    """Responses by model, then by prompt; of several to one prompt, the first."""
    found: dict[str, dict[str, Response]] = {}
    for response in responses:
        found.setdefault(response.model, {}).setdefault(response.prompt, response)
    return found


def meetings(
    responses: Mapping[str, Mapping[str, Response]], model: str, opponent: str
) -> list[tuple[Response, Response]]:
    """Responses of two models to the prompts that both answered, in the order of the first one's."""
    if missing := [name for name in (model, opponent) if name not in responses]:
        raise ValueError(f"no responses by {missing[0]!r}; there are some by {', '.join(sorted(responses))}")
    theirs = responses[opponent]
    return [(mine, theirs[prompt]) for prompt, mine in responses[model].items() if prompt in theirs]


def scores_of(meetings: Sequence[tuple[Response, Response]]) -> tuple[list[float], list[float]]:
    """The scores of both sides of N meetings, N numbers each."""
    return [a.score for a, _ in meetings], [b.score for _, b in meetings]


def load_responses(source: str | os.PathLike[str]) -> list[Response]:
    """Reads responses of models from a `.jsonl` or `.jsonl.gz` file.

    Returns:
        At least one response, in the order of the file, none of them twice. A blank response is one; scores are finite
        or None.

    Raises:
        DataError: If the file is not there or cannot be read, holds no row, or a row is not a response.
    """
    path = Path(source)
    if not path.name.lower().endswith((".jsonl", ".jsonl.gz")):
        raise DataError(f"{path}: unknown kind of file; expected a name that ends in .jsonl or .jsonl.gz")
    if not path.exists():
        raise DataError(f"{path}: no such file; expected a file of responses")
    responses: dict[tuple[str, str, str], Response] = {}
    try:
        for position, row in json_rows(path):
            try:
                response = _scored_response(row)
                if response.key in responses:
                    raise bad_value(
                        "response", response.text, f"a response by {response.model!r} that is not there yet"
                    )
            except DataError as error:
                raise DataError(f"{line_place(position)}: {error}") from None
            responses[response.key] = response
        if not responses:
            raise DataError("no rows; expected at least one response")
    except DataError as error:
        raise DataError(f"{path}: {error}") from error.__cause__
    return list(responses.values())


def _scored_response(row: Row) -> Response:
    for column in ("prompt", "model", "response"):
        if column not in row:
            raise DataError(f"column {column!r} is missing; expected it among {list(row)}")
    text = row["response"]
    if not isinstance(text, str):
        raise bad_value("response", text, "text, empty or not")
    score = None if (value := given_in(row, "score")) is None else number_of(value)
    if score is not None and not math.isfinite(score):
        raise bad_value("score", value, "a finite number, or null where it is not scored yet")
    return Response(
        text_in(row["prompt"], "prompt"), text_in(row["model"], "model"), check_unicode(text, "response"), score
    )
