"""A judge behind an OpenAI-compatible server: asked in words, many questions at a time, and never in vain. No torch.

The question is the prompt of the local judges as one user message, the answer a completion that must hold one
verbalized probability (`rewards.answer`). A request can end in four ways:

    answered   the completion holds a probability
    unparsed   it holds none; its text is kept, and it is not asked again: asking until it parses would pick answers
    refused    the server would not, or `max_retries` more attempts all failed; the reason is kept
    fatal      no request can succeed (wrong key, no such model, no credit, nobody there): `EndpointError`

Tried again, after a pause that doubles, with some chance in it so that requests do not come back all at once: status
408, 409, 425, 429 and from 500 on, time-outs, broken connections, bodies that are no chat completion, and empty ones.
Retry-After is honoured; behind a 429 it holds all requests up, since the limit is the account's.

Deliberately left out: streaming, tools, and log-probabilities, which few servers give and which say little about a
number of several tokens.
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import os
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from tqdm.auto import tqdm

from autorater.data.pairs import Pair
from autorater.judges.answer import Answer
from autorater.judges.judgments import Judgments
from autorater.prompts.templates import PromptFormat, neutralize
from rewards.answer import parse_probability

if TYPE_CHECKING:
    import openai

K = TypeVar("K")

_RETRIED = {408, 409, 425, 429}  # and from 500 on
_FATAL = {401: "the key was not accepted", 404: "no such model or address"}
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 60.0  # seconds
_HOPELESS = 20  # requests refused in a row, none answered: nobody is there


class EndpointError(ValueError):
    """No request can succeed; the message says why and what to do."""


@dataclass
class Usage:
    """What a run has used up so far, and how much it may.

    Attributes:
        requests: Requests sent, those that failed included.
        retries: How many of them repeated one that had failed.
        prompt_tokens, completion_tokens: As the server counts them.
        max_requests, max_tokens: No request is sent once as many are used up; None for no bound. Requests that are
            under way then still arrive.
    """

    requests: int = 0
    retries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    max_requests: int | None = None
    max_tokens: int | None = None

    def add(self, answer: Answer) -> None:
        """Counts the tokens of an answer."""
        self.prompt_tokens += answer.prompt_tokens
        self.completion_tokens += answer.completion_tokens

    @property
    def spent(self) -> bool:
        """Whether the budget is used up."""
        tokens = self.prompt_tokens + self.completion_tokens
        return (self.max_requests is not None and self.requests >= self.max_requests) or (
            self.max_tokens is not None and tokens >= self.max_tokens
        )


class _Fault(Exception):
    """A failed attempt: whether another may succeed, and how long the server asks to wait first."""

    def __init__(self, reason: str, again: bool = True, wait: float | None = None, for_all: bool = False):
        super().__init__(reason)
        self.again, self.wait, self.for_all = again, wait, for_all


@dataclass
class EndpointJudge:
    """A model behind an OpenAI-compatible server.

    Attributes:
        model: Its name there.
        base_url: Address of the server, up to and including `/v1`; by default OpenAI's, or `OPENAI_BASE_URL`.
        api_key_env: Environment variable with the key. Without a key a local server is assumed.
        prompt_format: How it is asked.
        temperature: Sampling temperature; None leaves it to the server.
        max_answer_tokens: Longest completion, sent as `max_tokens`.
        extra_body: More fields of the request, which replace those sent otherwise; None takes a field out.
        concurrency: Requests under way at a time, at least 1.
        timeout: Seconds until an attempt is given up.
        max_retries: Attempts after the first.
        max_wait: Seconds; a server that asks to wait longer than this refuses.
        usage: Counters and budget.

    Example:
        >>> judge = EndpointJudge("qwen2.5-7b-instruct", base_url="http://localhost:8000/v1")
        >>> judge.probabilities(pairs).p_sym
        array([0.71, 0.4 ])
    """

    model: str
    base_url: str | None = None
    api_key_env: str = "OPENAI_API_KEY"
    prompt_format: PromptFormat = field(default_factory=PromptFormat)
    temperature: float | None = 0.0
    max_answer_tokens: int = 64
    extra_body: Mapping[str, object] = field(default_factory=dict)
    concurrency: int = 8
    timeout: float = 60.0
    max_retries: int = 6
    max_wait: float = 600.0
    usage: Usage = field(default_factory=Usage)

    def message(self, pair: Pair, names: tuple[str, str] = ("A", "B")) -> str:
        """The question about a pair, whose first response is called `names[0]`."""
        return _layout(self.prompt_format, names).format(
            **{slot: neutralize(getattr(pair, slot)) for slot in ("prompt", "response_a", "response_b")}
        )

    def probabilities(self, pairs: Sequence[Pair], *, progress: bool = False) -> Judgments:
        """Judges every pair in both orders. A question without an answer has mean 0.5 and validity 0.

        Args:
            pairs: N pairs.
            progress: Show a progress bar.

        Raises:
            EndpointError: If no request can succeed, or the budget does not suffice.
        """
        mean, valid = np.full((len(pairs), 2), 0.5), np.zeros((len(pairs), 2))
        n_asked = 0
        with tqdm(total=mean.size, desc="judging", unit="request", disable=not progress, leave=False) as bar:

            def receive(place: tuple[int, int], answer: Answer) -> None:
                nonlocal n_asked
                n_asked += 1
                if answer.probability is not None:
                    mean[place], valid[place] = answer.probability, 1
                bar.update()

            shown = ((i, o, p) for i, pair in enumerate(pairs) for o, p in enumerate((pair, pair.swapped())))
            self.ask((((i, order), self.message(pair)) for i, order, pair in shown), receive)
        if n_asked < mean.size:
            raise EndpointError(f"the budget sufficed for {n_asked} of {mean.size} questions; allow more")
        return Judgments(mean, mean.copy(), np.zeros_like(mean), valid)

    def ask(self, questions: Iterable[tuple[K, str]], receive: Callable[[K, Answer], None]) -> None:
        """Asks questions, `concurrency` at a time, until they or the budget are used up.

        Args:
            questions: Keys and messages; a message is taken when its turn comes, so they may be any number.
            receive: Called with the key and the answer, once a question, in the order of arrival.

        Raises:
            EndpointError: If no request can succeed. What had arrived has been received.
            ImportError: If `openai` is not installed.
        """
        asyncio.run(self._ask(iter(questions), receive))

    async def _ask(self, questions: Iterator[tuple[K, str]], receive: Callable[[K, Answer], None]) -> None:
        self._resume_at, self._refused_in_a_row = 0.0, 0
        async with self._client() as client:
            workers = [asyncio.create_task(self._work(client, questions, receive)) for _ in range(self.concurrency)]
            try:
                await asyncio.gather(*workers)
            finally:
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)

    def _client(self) -> openai.AsyncOpenAI:
        try:
            import openai
        except ImportError as error:
            raise ImportError("judges behind an endpoint need `openai`: pip install 'autorater[endpoint]'") from error
        base_url = self.base_url or os.environ.get("OPENAI_BASE_URL")
        key = os.environ.get(self.api_key_env)
        if not key and not base_url:
            raise EndpointError(f"no key in {self.api_key_env}; set it, or give the base_url of a server without keys")
        try:
            http_client = openai.DefaultAioHttpClient(timeout=self.timeout)  # half the processor time a request
        except RuntimeError:  # openai was installed without its extra `aiohttp`
            http_client = None
        # retries are our own: openai's know nothing of bodies that are no chat completion
        return openai.AsyncOpenAI(
            base_url=base_url, api_key=key or "none", max_retries=0, timeout=self.timeout, http_client=http_client
        )

    async def _work(
        self, client: openai.AsyncOpenAI, questions: Iterator[tuple[K, str]], receive: Callable[[K, Answer], None]
    ) -> None:
        while not self.usage.spent and (question := next(questions, None)) is not None:
            key, message = question
            answer = await self._answer(client, message)
            if answer is None:  # the budget ran out between two attempts
                return
            self.usage.add(answer)
            receive(key, answer)
            self._refused_in_a_row = self._refused_in_a_row + 1 if answer.status == "refused" else 0
            if self._refused_in_a_row >= _HOPELESS:
                raise EndpointError(
                    f"{_HOPELESS} requests in a row were refused, the last because {answer.error}; mend it and ask "
                    "the refused ones again"
                )

    async def _answer(self, client: openai.AsyncOpenAI, message: str) -> Answer | None:
        for attempt in range(self.max_retries + 1):
            await asyncio.sleep(max(0.0, self._resume_at - time.monotonic()))
            if self.usage.spent:
                return None
            self.usage.requests += 1
            self.usage.retries += attempt > 0
            try:
                return await self._attempt(client, message)
            except _Fault as error:
                fault = error
            wait = fault.wait or random.uniform(0.5, 1) * min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**attempt)
            if not fault.again:
                return Answer("refused", error=str(fault))
            if wait > self.max_wait:
                return Answer("refused", error=f"{fault}, and asked to wait {wait:.0f} s")
            if attempt < self.max_retries:
                if fault.for_all:
                    self._resume_at = max(self._resume_at, time.monotonic() + wait)
                await asyncio.sleep(wait)
        return Answer("refused", error=f"{fault}, {self.max_retries + 1} times")

    async def _attempt(self, client: openai.AsyncOpenAI, message: str) -> Answer:
        import openai

        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": message}],
            "temperature": self.temperature,
            "max_tokens": self.max_answer_tokens,
            **self.extra_body,
        }
        body = {name: value for name, value in body.items() if value is not None}
        try:
            # the body as it came: what is in it is checked here, which openai's own types leave to the reader
            reply = await asyncio.wait_for(client.post("/chat/completions", cast_to=str, body=body), self.timeout)
        except openai.APIStatusError as error:
            raise self._status_fault(error) from None
        except (asyncio.TimeoutError, openai.APITimeoutError):
            raise _Fault(f"no reply within {self.timeout:g} s") from None
        except openai.APIConnectionError as error:
            raise _Fault(f"the connection failed ({error.__cause__ or error})") from None
        return _read(reply)

    def _status_fault(self, error: openai.APIStatusError) -> _Fault:
        status, said = error.status_code, " ".join(str(error.message).split())[:300]
        if status in _FATAL or error.code == "insufficient_quota":
            why = _FATAL.get(status, "the account has no credit")
            raise EndpointError(f"{why}: {said} (model {self.model!r}, key from {self.api_key_env})") from None
        again = status in _RETRIED or status >= 500
        wait = retry_after(error.response.headers) if again else None
        return _Fault(f"the server said: {said}", again, wait, for_all=status == 429 and wait is not None)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to wait, from its headers `retry-after-ms` or `retry-after`; None if it does not.

    The latter may be a number of seconds or a date (RFC 9110, section 10.2.3).
    """
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            return max(0.0, float(value) * unit)
        except ValueError:
            pass
        try:
            return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
        except ValueError:
            continue
    return None


def _layout(prompt_format: PromptFormat, names: tuple[str, str]) -> str:
    """The words of the question, with the responses renamed; the slots keep their names."""
    text = prompt_format.text
    for old, new in zip("AB", names, strict=True):
        text = text.replace(f"response {old}", f"response {new}").replace(f"Response {old}", f"Response {new}")
    return text


def _read(reply: str) -> Answer:
    """The answer in the body of a reply.

    Raises:
        _Fault: If it is no chat completion, or an empty one.
    """
    try:
        said = json.loads(reply)
    except ValueError:
        raise _Fault(f"the reply is no JSON: {reply[:80]!r}") from None
    try:
        choice = said["choices"][0]
        message = choice["message"]
        text = message.get("content") or message.get("refusal") or ""
        finish_reason, usage = choice.get("finish_reason"), said.get("usage") or {}
        tokens = [int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens")]
    except (KeyError, IndexError, TypeError, AttributeError, ValueError):
        raise _Fault(f"the reply is no chat completion: {reply[:80]!r}") from None
    if not isinstance(text, str):
        raise _Fault(f"the reply is no chat completion: {reply[:80]!r}")
    if not text.strip():
        raise _Fault("the reply is empty")
    probability = parse_probability(text)
    status = "unparsed" if probability is None else "answered"
    return Answer(status, probability, text, None, None, finish_reason, *tokens)
