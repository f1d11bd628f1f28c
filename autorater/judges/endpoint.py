"""Async client for a judge on an OpenAI-compatible server, with retries and a budget. Imports no torch.

A request is the prompt of the local judges as one user message; its completion must hold one verbalized probability
(`rewards.answer`). A request ends in one of four ways:

    answered   the completion holds a probability
    unparsed   it holds none; it is not retried, because retrying until it parses would select answers
    refused    the server rejected it, or all of its `max_retries` + 1 attempts failed
    fatal      no request can succeed (invalid key, unknown model, no credit, no server): `EndpointError`

Retried, with exponential backoff and jitter: status 408, 409, 425, 429 and >= 500, time-outs, broken connections,
empty replies and replies that are no chat completion. Retry-After is respected; after a 429 it delays all requests.
openai's own retries are off: they are not counted, delay one request only, and accept any reply.
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

from autorater.data.errors import UserError
from autorater.data.pairs import Pair
from autorater.judges.judgments import Answer, Judgments
from autorater.prompts.templates import PromptFormat, neutralize
from rewards.answer import parse_probability

if TYPE_CHECKING:
    import openai

K = TypeVar("K")
Receive = Callable[[K, Answer], None]

_RETRIED = {408, 409, 425, 429}  # and from 500 on
_FATAL = {401: "the key was not accepted", 404: "no such model or address"}
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 60.0  # seconds
_MAX_REFUSED_IN_A_ROW = 20  # then the server is assumed to be unavailable


class EndpointError(UserError):
    """No request can succeed, or the budget is too small; the message says why and what to do."""


@dataclass
class Usage:
    """Requests and tokens used so far, and the budget.

    `requests` includes failed ones and `retries`; tokens are as the server counts them. No request is sent once
    `max_requests` or `max_tokens` are used; None for no limit.
    """

    requests: int = 0
    retries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    max_requests: int | None = None
    max_tokens: int | None = None

    def add(self, answer: Answer) -> None:
        """Adds the tokens of an answer."""
        self.prompt_tokens += answer.prompt_tokens
        self.completion_tokens += answer.completion_tokens

    @property
    def spent(self) -> bool:
        """Whether the budget is used up."""
        tokens = self.prompt_tokens + self.completion_tokens
        budget = ((self.requests, self.max_requests), (tokens, self.max_tokens))
        return any(limit is not None and used >= limit for used, limit in budget)


class _FailedAttempt(Exception):
    """Why an attempt failed, whether to retry, and the required wait in seconds (of all requests)."""

    def __init__(self, reason: str, retry: bool = True, wait: float | None = None, for_all: bool = False):
        super().__init__(reason)
        self.retry, self.wait, self.for_all = retry, wait, for_all


@dataclass
class EndpointJudge:
    """A model on an OpenAI-compatible server.

    Attributes:
        model: Its name on the server.
        base_url: Address of the server, up to and including `/v1`; by default OpenAI's, or `OPENAI_BASE_URL`.
        api_key_env: Environment variable with the key; a local server may need none.
        prompt_format: The prompt format.
        temperature: Sampling temperature; None for the server's default.
        max_answer_tokens: Maximum completion tokens, sent as `max_tokens`.
        extra_body: Additional fields of the request, which override others; None removes a field.
        concurrency: Requests in progress at a time, at least 1.
        timeout: Seconds after which an attempt fails.
        max_retries: Attempts after the first.
        max_wait: Seconds; a request is refused if the server requires a longer wait.
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
        """The prompt for a pair, whose first response is called `names[0]`."""
        text = self.prompt_format.text
        for old, new in zip("AB", names, strict=True):
            text = text.replace(f"response {old}", f"response {new}").replace(f"Response {old}", f"Response {new}")
        return text.format(**{slot: neutralize(getattr(pair, slot)) for slot in self.prompt_format.slots})

    def probabilities(self, pairs: Sequence[Pair], *, progress: bool = False) -> Judgments:
        """Judges N pairs in both orders. A request without an answer has mean 0.5 and validity 0.

        Raises:
            EndpointError: If no request can succeed, or the budget is too small.
        """
        mean, valid = np.full((2, len(pairs), 2), np.nan)
        hidden = None if progress else True  # None: hidden without a terminal
        with tqdm(total=mean.size, desc="judging", unit="request", disable=hidden, leave=False) as bar:

            def receive(entry: tuple[int, int], answer: Answer) -> None:
                valid[entry] = answer.probability is not None
                mean[entry] = answer.probability if valid[entry] else 0.5
                bar.update()

            shown = ((i, o, p) for i, pair in enumerate(pairs) for o, p in enumerate((pair, pair.swapped())))
            self.ask((((i, order), self.message(pair)) for i, order, pair in shown), receive)
        n_judged = np.isfinite(valid).sum()
        if n_judged < mean.size:
            raise EndpointError(f"the budget covers {n_judged} of {mean.size} requests; raise it or judge fewer pairs")
        return Judgments(mean, mean.copy(), np.zeros_like(mean), valid)

    def ask(self, requests: Iterable[tuple[K, str]], receive: Receive) -> None:
        """Sends requests, `concurrency` at a time, until all are completed or the budget is used up.

        Args:
            requests: Keys and messages, read lazily.
            receive: Called with key and answer, once per request, in order of completion.

        Raises:
            UserError: If no request can succeed (`EndpointError`), or `openai` is not installed.
        """
        asyncio.run(self._send_all(iter(requests), receive))

    async def _send_all(self, requests: Iterator[tuple[K, str]], receive: Receive) -> None:
        self._resume_at, self._refused_in_a_row = 0.0, 0
        try:
            async with self._client() as client, asyncio.TaskGroup() as workers:
                for _ in range(self.concurrency):
                    workers.create_task(self._work(client, requests, receive))
        except ExceptionGroup as errors:  # the other workers were cancelled
            raise errors.exceptions[0] from None

    def _client(self) -> openai.AsyncOpenAI:
        try:
            import openai
        except ImportError as error:
            raise UserError("a judge on a server requires openai: pip install 'autorater-rl[endpoint]'") from error
        base_url = self.base_url or os.environ.get("OPENAI_BASE_URL")
        key = os.environ.get(self.api_key_env)
        if not key and not base_url:
            raise EndpointError(f"no key in {self.api_key_env}; set it, or the base_url of a server without keys")
        try:
            http_client = openai.DefaultAioHttpClient(timeout=self.timeout)  # half the CPU time per request
        except RuntimeError:  # openai was installed without its extra `aiohttp`
            http_client = None
        return openai.AsyncOpenAI(
            base_url=base_url, api_key=key or "none", max_retries=0, timeout=self.timeout, http_client=http_client
        )

    async def _work(self, client: openai.AsyncOpenAI, requests: Iterator[tuple[K, str]], receive: Receive) -> None:
        while not self.usage.spent and (request := next(requests, None)) is not None:
            answer = await self._answer(client, request[1])
            if answer is None:  # the budget was used up between two attempts
                return
            self.usage.add(answer)
            receive(request[0], answer)
            self._refused_in_a_row = self._refused_in_a_row + 1 if answer.status == "refused" else 0
            if self._refused_in_a_row >= _MAX_REFUSED_IN_A_ROW:
                raise EndpointError(
                    f"{_MAX_REFUSED_IN_A_ROW} requests in a row were refused, the last because {answer.error}; "
                    "fix this and repeat the refused requests"
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
            except _FailedAttempt as error:
                failed = error
            wait = failed.wait or random.uniform(0.5, 1) * min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**attempt)
            if not failed.retry:
                return Answer("refused", error=str(failed))
            if wait > self.max_wait:
                return Answer("refused", error=f"{failed}, and required a wait of {wait:.0f} s")
            if attempt < self.max_retries:
                if failed.for_all:
                    self._resume_at = max(self._resume_at, time.monotonic() + wait)
                await asyncio.sleep(wait)
        return Answer("refused", error=f"{failed}, {self.max_retries + 1} times")

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
            # the raw text: openai's types do not check what is in a reply
            reply = await asyncio.wait_for(client.post("/chat/completions", cast_to=str, body=body), self.timeout)
        except openai.APIStatusError as error:
            raise self._failed_status(error) from None
        except (TimeoutError, openai.APITimeoutError):
            raise _FailedAttempt(f"no reply within {self.timeout:g} s") from None
        except openai.APIConnectionError as error:
            raise _FailedAttempt(f"the connection failed ({error.__cause__ or error})") from None
        return _parse_reply(reply)

    def _failed_status(self, error: openai.APIStatusError) -> _FailedAttempt:
        status, text = error.status_code, " ".join(str(error.message).split())[:300]
        if status in _FATAL or error.code == "insufficient_quota":
            reason = _FATAL.get(status, "the account has no credit")
            raise EndpointError(f"{reason}: {text} (model {self.model!r}, key from {self.api_key_env})") from None
        retry = status in _RETRIED or status >= 500
        wait = retry_after(error.response.headers) if retry else None
        return _FailedAttempt(f"the server replied: {text}", retry, wait, for_all=status == 429 and wait is not None)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, from the header `retry-after-ms` or `retry-after` (seconds or a date, RFC 9110); else None."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        value = headers.get(name, "")
        try:
            return max(0.0, float(value) * unit)
        except ValueError:
            pass
        try:
            return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
        except ValueError:
            continue
    return None


def _parse_reply(reply: str) -> Answer:
    """The answer in the body of a reply. Raises _FailedAttempt if it is no chat completion, or an empty one."""
    try:
        body = json.loads(reply)
        choice = body["choices"][0]
        text = choice["message"].get("content") or choice["message"].get("refusal") or ""
        is_empty = not text.strip()
        finish_reason, usage = choice.get("finish_reason"), body.get("usage") or {}
        tokens = [int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens")]
    except (KeyError, IndexError, TypeError, AttributeError, ValueError):
        raise _FailedAttempt(f"the reply is no chat completion: {reply[:80]!r}") from None
    if is_empty:
        raise _FailedAttempt("the reply is empty")
    probability = parse_probability(text)
    status = "unparsed" if probability is None else "answered"
    return Answer(status, probability, text, None, None, finish_reason, *tokens)
