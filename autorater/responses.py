"""Responses: what models wrote to prompts, one at a time, with or without the score of a reward model.

Reading files of them is in `autorater.loading`. Needs nothing but the standard library.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from autorater.pairs import Pair


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
