"""A pointwise judge behind an OpenAI-compatible server, read exactly: the ten digits after every response.

One request holds the prompt of a response with every node of the tree of digits behind it; with one token a digit that
is the prompt alone. Every distinct response is read once, however many pairs have it, and in either order.

Deliberately left out: sampled digits, of which one says little about the expected score.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TypeVar

import numpy as np
import torch

from autorater.data.errors import UserError
from autorater.data.pairs import Pair
from autorater.judges.identity import digest
from autorater.judges.judgments import Answer
from autorater.judges.replies import Reply
from autorater.judges.served import ServedJudge, open_format
from autorater.prompts.encoder import EncodedPrompt
from autorater.prompts.templates import Wording

K = TypeVar("K")


@dataclass
class _ScoredResponse:
    """The digits of one response, shape (10,), None until they are read; requests and tokens not counted yet."""

    digits: np.ndarray | None = None
    problem: str = ""
    used: Counter[str] = field(default_factory=Counter)  # by the fields of `Answer`
    waiting: list[_Pair] = field(default_factory=list)

    @property
    def is_done(self) -> bool:
        return self.digits is not None or bool(self.problem)


_Pair = tuple[K, Sequence[_ScoredResponse]]  # the key of a request, and the responses shown first and second


class _ScoredResponses:
    """The responses of the pairs of one call, by the hash of their prompt.

    Args:
        known: Digits of responses by their hash, to which those that are read are added.
        answer: Called once for every pair, with its key and its responses, when both are done.
    """

    def __init__(self, known: dict[str, np.ndarray], answer: Callable[[K, Sequence[_ScoredResponse]], None]):
        self.known, self.answer = known, answer
        self.scored: dict[str, _ScoredResponse] = {}

    def add(self, key: K, shown: Sequence[EncodedPrompt]) -> list[tuple[str, EncodedPrompt]]:
        """Adds a pair; returns the hashes and prompts of its responses that are still to be requested."""
        both = [digest(prompt.ids) for prompt in shown]
        prompts = dict(zip(both, shown, strict=True))
        new = [response for response in prompts if response not in self.scored]
        self.scored |= {response: _ScoredResponse(self.known.get(response)) for response in new}
        pair = key, [self.scored[response] for response in both]
        for response in prompts:
            if not self.scored[response].is_done:
                self.scored[response].waiting.append(pair)
        self._answer_if_done(pair)
        return [(response, prompts[response]) for response in new if not self.scored[response].is_done]

    def read(self, response: str, reply: Reply, digits: np.ndarray | None) -> None:
        """Adds the reply to a request, and the digits unless it was refused."""
        entry = self.scored[response]
        entry.used += Counter(requests=1, prompt_tokens=reply.prompt_tokens, completion_tokens=reply.completion_tokens)
        entry.problem = reply.problem or ""
        if digits is not None:
            entry.digits = self.known[response] = digits
        waiting, entry.waiting = entry.waiting, []
        for pair in waiting:
            self._answer_if_done(pair)

    def _answer_if_done(self, pair: _Pair) -> None:
        key, both = pair
        if all(response.is_done for response in both):
            self.answer(key, both)


@dataclass
class ServedPointwiseJudge(ServedJudge):
    """A pointwise judge that was trained here, behind a server; attributes as in `ServedJudge`.

    Raises:
        UserError: If it is to be sampled.
    """

    is_pointwise = True

    def __post_init__(self):
        super().__post_init__()
        if self.read != "exact":
            raise UserError("a pointwise judge is read exactly, its score is a mean; leave out --read sampled")
        self._way: Mapping[str, object] | None = None  # found by the first request
        self._digits: dict[str, np.ndarray] = {}  # of every response that was read, by the hash of its prompt

    def n_requests(self, pairs: Sequence[Pair]) -> int:
        return len({(pair.prompt, text) for pair in pairs for text in (pair.response_a, pair.response_b)})

    def ask_pairs(self, requests: Iterable[tuple[K, Pair, Wording]], receive: Callable[[K, Answer], None]) -> None:
        """As in `EndpointJudge`; a response of several pairs is counted with the first of them that is answered."""
        responses = _ScoredResponses(self._digits, lambda key, both: receive(key, self._answer(both)))

        def received(response: str, reply: Reply, edges: torch.Tensor | None) -> None:
            read = None if edges is None else self.judge.tree.log_probs_of_edges(edges).exp()[0].numpy().clip(0, 1)
            responses.read(response, reply, read)

        shown = ((key, self.judge.encoder.encode([pair])[0]) for key, pair, _ in requests)
        unread = chain.from_iterable(responses.add(key, prompts) for key, prompts in shown)
        if (first := next(unread, None)) is None:
            return
        if self._way is None:
            self._way = self.find_way(first[1])
        self.read_trees(self._way, chain([first], unread), received)

    def _answer(self, scored: Sequence[_ScoredResponse]) -> Answer:
        """The answer from the digits of the response shown first and second."""
        used = Counter(requests=0, prompt_tokens=0, completion_tokens=0)
        for entry in scored:
            used.update(entry.used)
            entry.used.clear()  # counted
        problem = next((entry.problem for entry in scored if entry.problem), None)
        if problem:
            return Answer("refused", error=problem, **used)
        judgments = self.judge.from_digits(*(entry.digits[None] for entry in scored))
        return Answer.stated(judgments.mean[0, 0], judgments.valid[0, 0], **used)


def served_judge(model: str, judge_format: str, **options: object) -> ServedJudge:
    """The judge whose format is in a folder, behind a server, where it is called `model`.

    Args:
        judge_format: As in `open_format`.
        options: As in `ServedJudge`.
    """
    judge = open_format(judge_format)
    kind = ServedPointwiseJudge if judge.is_pointwise else ServedJudge
    return kind(model, judge=judge, **options)
