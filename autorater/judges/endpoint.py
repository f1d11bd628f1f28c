"""A judge on an OpenAI-compatible server, which writes its answer. Imports no torch.

A request is the prompt of the local judges as one user message. It ends in one of three ways:

    answered   the completion holds one verbalized probability (`rewards.answer`)
    unparsed   it holds none; it is not retried, because retrying until it parses would select answers
    refused    there is no completion (`autorater.judges.client`)

Deliberately left out: streaming, tools, and log-probabilities.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TypeVar

import numpy as np

from autorater.data.errors import UserError
from autorater.data.loading import as_pairs
from autorater.data.pairs import Pair
from autorater.data.tables import Source
from autorater.judges.client import EndpointError, ServerClient
from autorater.judges.judgments import Answer, Judgments, NamedJudge
from autorater.judges.replies import Reply, read_reply
from autorater.progress import progress_bar
from autorater.prompts.markers import shown_texts, without_control_tokens
from autorater.prompts.templates import AS_IT_IS, PromptFormat, Wording
from rewards.answer import OPEN_TAG, THINK_CLOSE, parse_probability

K = TypeVar("K")
logger = logging.getLogger(__name__)


@dataclass
class EndpointJudge(ServerClient, NamedJudge):
    """A model on an OpenAI-compatible server; further attributes as in `ServerClient`.

    Attributes:
        prompt_format: The prompt format.
        temperature: Sampling temperature; None for the server's default.
        max_answer_tokens: Maximum completion tokens, sent as `max_tokens`.

    Example:
        >>> judge = EndpointJudge("qwen2.5-7b-instruct", base_url="http://localhost:8000/v1")
        >>> judge.probabilities(pairs).p_sym
        array([0.71, 0.4 ])
    """

    prompt_format: PromptFormat = field(default_factory=PromptFormat)
    temperature: float | None = 0.0
    max_answer_tokens: int = 64
    reasons: list[str] = field(default_factory=list, init=False, repr=False, compare=False)
    """Why requests of the last `probabilities` have no answer, see `missing_answers`."""

    def __post_init__(self):
        super().__post_init__()
        if self.prompt_format.is_bare:
            raise UserError(
                f"prompt template {self.prompt_format.template} ends with the answer tag, which a server's chat does "
                "not continue; expected a template that asks for the answer, such as full or short"
            )

    @property
    def method(self) -> str:
        """The judging method that its answers are of, see `autorater.judges.methods`."""
        return "verbalized_reasoning" if self.prompt_format.reasoning else "verbalized"

    @property
    def prompts_per_request(self) -> int:
        """Prompts that one request holds."""
        return 1

    @property
    def longest_answer(self) -> int:
        """Tokens of the longest answer to one prompt."""
        return self.max_answer_tokens

    def n_requests(self, pairs: Sequence[Pair]) -> int:
        """Requests that judging the pairs in both orders takes."""
        return 2 * len(pairs)

    def served_settings(self) -> dict[str, object]:
        """What its answers depend on beside prompt, model and server, as JSON values."""
        return {}

    def message(self, pair: Pair, wording: Wording = AS_IT_IS) -> str:
        """The user's message for a pair.

        Raises:
            UserError: If the pair has no value for a slot of the template, or the template calls no response A and B.
        """
        format = self.prompt_format.paraphrased if wording.paraphrased else self.prompt_format
        pieces = list(format.pieces)
        for old, new in zip("AB", wording.names, strict=True):
            pieces = [re.sub(rf"\b([Rr]esponse) {old}\b", rf"\1 {new}", piece) for piece in pieces]
        if wording.names != ("A", "B") and pieces == list(format.pieces):
            raise UserError("the prompt template has no 'response A' and 'response B' that could get other names")
        texts = map(without_control_tokens, shown_texts(format.values(pair), format.markers))
        return "".join(chain.from_iterable(zip(pieces, texts, strict=False))) + pieces[-1]

    def probabilities(self, pairs: Sequence[Pair] | Source, *, progress: bool = False) -> Judgments:
        """Judges N pairs, or rows of a source (`as_pairs`), in both orders.

        A request without an answer has mean 0.5 and validity 0; a warning says why.

        Raises:
            EndpointError: If no request can succeed, or the budget is too small.
        """
        pairs = as_pairs(pairs)
        mean, valid = np.full((2, len(pairs), 2), np.nan)
        missing: list[Mapping[str, object]] = []
        with progress_bar(mean.size, "judging", "request", progress) as bar:

            def receive(entry: tuple[int, int], answer: Answer) -> None:
                mean[entry], valid[entry] = numbers_in(vars(answer))
                if answer.status != "answered":
                    missing.append(vars(answer))
                bar.update()

            shown = ((i, o, p) for i, pair in enumerate(pairs) for o, p in enumerate((pair, pair.swapped())))
            self.ask_pairs((((i, order), pair, AS_IT_IS) for i, order, pair in shown), receive)
        self.reasons = missing_answers(missing, self.max_answer_tokens)
        if missing:
            logger.warning(f"no probability for {len(missing):,} of {mean.size:,} requests; {'; '.join(self.reasons)}")
        n_judged = np.isfinite(valid).sum()
        if n_judged < mean.size:
            raise EndpointError(f"the budget covers {n_judged} of {mean.size} requests; raise it or judge fewer pairs")
        return Judgments(mean, mean.copy(), np.zeros_like(mean), valid)

    def ask_pairs(self, requests: Iterable[tuple[K, Pair, Wording]], receive: Callable[[K, Answer], None]) -> None:
        """Judges pairs in the given order; requests are keys, pairs and wordings.

        Arguments and errors as in `ServerClient.post_all`.
        """
        self.ask(((key, self.message(pair, wording)) for key, pair, wording in requests), receive)

    def ask(self, requests: Iterable[tuple[K, str]], receive: Callable[[K, Answer], None]) -> None:
        """Sends messages and gives the answers to `receive`; arguments and errors as in `ServerClient.post_all`."""
        options = {"temperature": self.temperature, "max_tokens": self.max_answer_tokens}
        system = self.prompt_format.system_prompt
        first = [{"role": "system", "content": system}] if system else []
        bodies = ((key, {"messages": [*first, {"role": "user", "content": text}]} | options) for key, text in requests)
        self.post_all("/chat/completions", bodies, read_reply, lambda key, reply: receive(key, written_answer(reply)))


def written_answer(reply: Reply, *, prefilled: bool = False) -> Answer:
    """The answer in a reply; `prefilled` if the prompt ended with the opening answer tag.

    A reply that was cut off has no answer behind other words: they may be a thought that quotes the format.
    """
    used = {name: getattr(reply, name) for name in ("finish_reason", "prompt_tokens", "completion_tokens")}
    if reply.problem:
        return Answer("refused", error=reply.problem, **used)
    answers = prefilled or THINK_CLOSE in reply.text or reply.text.lstrip().startswith(OPEN_TAG)
    is_whole = answers or reply.finish_reason != "length"
    probability = parse_probability(reply.text, prefilled=prefilled) if is_whole else None
    return Answer("unparsed" if probability is None else "answered", probability, reply.text, **used)


def numbers_in(answer: Mapping[str, object]) -> tuple[float, float]:
    """Probability and validity of an answer, 0.5 and 0 without one; `answer` as one of `missing_answers`."""
    if answer["status"] != "answered":
        return 0.5, 0.0
    valid = answer.get("valid")
    return answer["probability"], 1.0 if valid is None else valid


def missing_answers(answers: Iterable[Mapping[str, object]], max_answer_tokens: int) -> list[str]:
    """Why requests have no probability, in lines, the most frequent reasons first.

    Args:
        answers: The fields of an `Answer` each, as they are or as stored.
        max_answer_tokens: As in `EndpointJudge`.
    """
    reasons = Counter()
    for answer in answers:
        if answer["status"] == "refused":
            reasons[f"refused: {answer['error']}"] += 1
        elif answer["status"] == "unparsed" and answer.get("finish_reason") == "length":
            cut = f"cut off at {max_answer_tokens} tokens, finish_reason length; raise --max_answer_tokens"
            reasons[cut] += 1
        elif answer["status"] == "unparsed" and answer.get("finish_reason") == "content_filter":
            reasons["stopped by the content filter of the server, finish_reason content_filter"] += 1
        elif answer["status"] == "unparsed":
            reasons["the text holds no probability, or more than one"] += 1
    return [f"{count:,} answers: {reason}" for reason, count in reasons.most_common(4)]
