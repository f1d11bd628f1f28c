"""A pointwise judge behind an OpenAI-compatible server, read exactly: the ten digits after every response.

One request holds the prompt of a response with every node of the tree of digits behind it; with one token a digit that
is the prompt alone. Every distinct response is read once, however many pairs have it, and in either order.

Deliberately left out: sampled digits, of which one says little about the expected score.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
    waiting: list[int] = field(default_factory=list)  # numbers of the requests for it

    @property
    def is_done(self) -> bool:
        return self.digits is not None or bool(self.problem)


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
        scored: dict[str, _ScoredResponse] = {}
        open_pairs: dict[int, tuple[K, tuple[str, str]]] = {}

        def finish(number: int) -> None:
            key, both = open_pairs[number]
            if all(scored[response].is_done for response in both):
                del open_pairs[number]
                receive(key, self._answer([scored[response] for response in both]))

        def prompts() -> Iterator[tuple[str, EncodedPrompt]]:
            for number, (key, pair, _) in enumerate(requests):
                shown = self.judge.encoder.encode([pair])[0]
                both = tuple(digest(prompt.ids) for prompt in shown)
                encoded = dict(zip(both, shown, strict=True))
                new = [response for response in encoded if response not in scored]
                for response in new:
                    scored[response] = _ScoredResponse(self._digits.get(response))
                open_pairs[number] = key, both
                for response in encoded:
                    if not scored[response].is_done:
                        scored[response].waiting.append(number)
                yield from ((r, encoded[r]) for r in new if not scored[r].is_done)
                if number in open_pairs:
                    finish(number)

        def received(response: str, reply: Reply, edges: torch.Tensor | None) -> None:
            entry = scored[response]
            entry.used += Counter(
                requests=1, prompt_tokens=reply.prompt_tokens, completion_tokens=reply.completion_tokens
            )
            entry.problem = reply.problem or ""
            if edges is not None:
                entry.digits = self.judge.tree.log_probs_of_edges(edges).exp()[0].numpy().clip(0, 1)
                self._digits[response] = entry.digits
            waiting, entry.waiting = entry.waiting, []
            for number in waiting:
                if number in open_pairs:
                    finish(number)

        unread = prompts()
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
