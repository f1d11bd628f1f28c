"""Async client of an OpenAI-compatible server, with retries and a budget. Imports no torch.

A request ends with a reply that has a text, or is refused: the server rejected it, the reply has no visible text
(content filter, cut off, only reasoning), or all of its `max_retries` + 1 attempts failed. If no request can succeed,
an `EndpointError` ends them all: at once for an invalid key, an unknown model or no credit; after many refusals in a
row; or if every request of a call was refused, none of them because of its prompt, and none was answered before.

Retried, with exponential backoff and jitter: status 408, 409, 425, 429 and >= 500 except 501, time-outs, broken
connections, empty replies without a reason and replies of another format (`autorater.judges.replies`). An error in a
reply with status 200 is treated like the status that it names, and is retried if it names none. No credit with status
429 is retried too once the server has answered: some servers report a rate limit so. Retry-After is respected; after a
429 it delays all requests, since the rate limit is that of the account. openai's own retries are off: they are not
counted, delay one request only, and accept any reply. A server that refuses `max_tokens` or a temperature gets
`max_completion_tokens` or no temperature from then on.
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import logging
import numbers
import os
import random
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import parse_qsl, quote, quote_plus, urlsplit, urlunsplit

from autorater.data.errors import UserError
from autorater.judges.cut_prompts import CutPrompts
from autorater.judges.options import check_address, without_secret_values
from autorater.judges.replies import Reply, error_reason, error_status, is_temporary, tokens_in
from autorater.judges.usage import Usage

if TYPE_CHECKING:
    import openai

K = TypeVar("K")
Body = Mapping[str, object]
logger = logging.getLogger(__name__)

_FATAL = {401: "the key was not accepted", 402: "the account has no credit", 404: "no such model or address"}
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 60.0  # seconds
_OPENAI = "https://api.openai.com/v1"
_AZURE_DEPLOYMENT = "/openai/deployments/"
_MAX_REFUSED_IN_A_ROW = 20  # then the server is assumed to be unavailable
_OF_THE_REQUEST = (200, 400, 413, 422)  # statuses of a refusal that may be about the prompt
_CONTEXT = r"context(?! (?:deadline|cancell?ed))"
_FILTERED = r"content.?(filter|policy|management)|moderation"
_OF_THE_PROMPT = re.compile(rf"{_CONTEXT}|too long|too large|{_FILTERED}", re.IGNORECASE)
# in an error that may pass, as of a server whose model does not start, "context" alone is not about the prompt
_OF_THE_PROMPT_IF_TEMPORARY = re.compile(
    _CONTEXT + r".{0,20}(length|size|window|limit|exceed)"
    rf"|(input|prompt|request|context)( is)? too (long|large)|{_FILTERED}",
    re.IGNORECASE,
)
_RETRY_DELAY = re.compile(r'"retryDelay"\s*:\s*"(\d+(?:\.\d+)?)s"')
_NOT_IN_HEADERS = re.compile(r"[^ -~]")
CHARACTERS_PER_TOKEN = 4  # of English, roughly


class EndpointError(UserError):
    """No request can succeed, or the budget is too small; the message says why and what to do.

    `status` is that of the error that showed it, if there was one; 402 for an account without credit.
    """

    def __init__(self, message: str, status: int | None = None):
        super().__init__(message)
        self.status = status


class _FailedAttempt(Exception):
    """Why an attempt failed, the status of its reply, whether to retry, and the required wait in seconds (of all)."""

    def __init__(
        self,
        reason: str,
        status: int | None = None,
        retry: bool = True,
        wait: float | None = None,
        for_all: bool = False,
    ):
        super().__init__(reason)
        self.status, self.retry, self.wait, self.for_all = status, retry, wait, for_all


@dataclass
class ServerClient:
    """Requests to one model on an OpenAI-compatible server.

    Attributes:
        model: Its name on the server.
        base_url: Address of the server, up to and including `/v1`; by default OpenAI's, or `OPENAI_BASE_URL`. Its
            query is kept; an Azure deployment (`…/openai/deployments/NAME?api-version=…`) gets the key as `api-key`.
        api_key_env: Environment variable with the key; a local server may need none.
        extra_body: Additional fields of the requests, which override others; None removes a field.
        headers: Additional headers of the requests.
        concurrency: Requests in progress at a time, at least 1.
        timeout: Seconds after which an attempt fails.
        max_retries: Attempts after the first.
        max_wait: Seconds; a request is refused if the server requires a longer wait.
        usage: Counters and budget.

    Raises:
        UserError: If an attribute has an impossible value.
    """

    model: str
    base_url: str | None = field(default=None, repr=False)  # its query and the headers may have keys
    api_key_env: str = "OPENAI_API_KEY"
    extra_body: Body = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    concurrency: int = 8
    timeout: float = 60.0
    max_retries: int = 6
    max_wait: float = 600.0
    usage: Usage = field(default_factory=Usage)
    adapted: dict[str, object] = field(default_factory=dict, init=False, repr=False, compare=False)
    """Fields that the server requires in place of ours, found by its errors."""
    refused_in_a_row: int = field(default=0, init=False, repr=False, compare=False)
    """Refusals that are not about the prompt since the last answer, of all calls."""
    logged_retry: bool = field(default=False, init=False, repr=False, compare=False)
    """Whether a retry has been logged."""

    def __post_init__(self):
        whole, real = numbers.Integral, numbers.Real
        for name, kind, low in (("concurrency", whole, 1), ("max_retries", whole, 0), ("timeout", real, 1e-3)):
            if not isinstance(value := getattr(self, name), kind) or not value >= low:
                raise UserError(f"{name} = {value!r}: expected a {'whole ' * (kind is whole)}number, {low} or more")
        if self.address:
            check_address("base_url" if self.base_url else "OPENAI_BASE_URL", self.address)

    @property
    def address(self) -> str | None:
        """`base_url`, or that of the environment; None for OpenAI's."""
        return self.base_url or os.environ.get("OPENAI_BASE_URL") or None

    @property
    def named_address(self) -> str:
        """`address` without secrets, with where it comes from if it is not `base_url`."""
        if self.address is None:
            return f"{_OPENAI} (no base_url)"
        return without_secret_values(self.address) + ("" if self.base_url else " (OPENAI_BASE_URL)")

    def without_secrets(self, text: str) -> str:
        """A text of the server with `…` for the key and the values of headers and of the address's query.

        Those of less than six characters stay: they are in many words.
        """
        query = parse_qsl(urlsplit(self.address or "").query)
        secrets = [os.environ.get(self.api_key_env, ""), *(value for name, value in query if name != "api-version")]
        secrets += [value.replace(" ", "+") for value in secrets]  # a plus in a query is read as a blank
        for value in self.headers.values():
            secrets += [value, value.partition(" ")[2]]  # Basic …, Bearer …
        secrets = sorted((secret for secret in secrets if len(secret) >= 6), key=len, reverse=True)
        for secret in secrets:
            in_url = quote(secret), quote(secret, safe=""), quote_plus(secret)
            in_json = secret.replace("/", r"\/")
            for spelled in (secret, *in_url, in_json):
                text = text.replace(spelled, "…")
        return text

    def post_all(
        self,
        path: str,
        requests: Iterable[tuple[K, Body]],
        read: Callable[[str], Reply],
        receive: Callable[[K, Reply], None],
    ) -> None:
        """Sends requests, `concurrency` at a time, until all are completed or the budget is used up.

        For calls of one thread at a time: the budget is kept within a call.

        Args:
            path: Path of the requests, such as `/chat/completions`.
            requests: Keys and bodies, taken lazily; the model is added to the bodies.
            read: Reads a reply with status 200.
            receive: Called with key and reply, once per request, in order of completion; `problem` says why a request
                was refused.

        Raises:
            UserError: If no request can succeed (`EndpointError`); replies until then were received.
        """
        _Session(self, path, read, receive).run(iter(requests))


class _Session:
    """The requests of one call of `post_all`."""

    def __init__(self, client: ServerClient, path: str, read: Callable[[str], Reply], receive: Callable):
        self.client, self.path, self.read, self.receive = client, path, read, receive
        self.resume_at, self.n_replies = 0.0, 0
        self.unavailable: Counter[str] = Counter()  # reasons of refusals that another prompt would meet too
        self.largest = 0  # tokens of the largest reply
        self.warned = False  # that the server reports no tokens
        self.cut_prompts, self.replied = CutPrompts(), asyncio.Condition()

    def run(self, requests: Iterator[tuple[K, Body]]) -> None:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            asyncio.run(self.send_all(requests))
        else:  # a notebook has a loop of its own
            with ThreadPoolExecutor(1) as thread:
                thread.submit(asyncio.run, self.send_all(requests)).result()
        self.cut_prompts.warn()

    async def send_all(self, requests: Iterator[tuple[K, Body]]) -> None:
        try:
            async with open_client(self.client) as server, asyncio.TaskGroup() as workers:
                for _ in range(self.client.concurrency):
                    workers.create_task(self.work(server, requests))
        except ExceptionGroup as errors:  # the other workers were cancelled
            raise errors.exceptions[0] from None
        if self.n_replies and self.unavailable.total() == self.n_replies and not self.client.usage.answered:
            raise _unavailable(f"all {self.n_replies:,} requests", self.unavailable.most_common(1)[0][0])

    async def work(self, server: openai.AsyncOpenAI, requests: Iterator[tuple[K, Body]]) -> None:
        while not self.client.usage.spent and (request := next(requests, None)) is not None:
            reply = await self.reply_to(server, request[1])
            if reply is None:  # the budget was used up between two attempts
                return
            self.receive(request[0], reply)
            self.n_replies += 1
            if not reply.problem:
                self.client.refused_in_a_row, self.client.usage.answered = 0, True
            elif not (_OF_THE_PROMPT_IF_TEMPORARY if reply.retry else _OF_THE_PROMPT).search(reply.problem):
                # else another prompt may be accepted
                self.client.refused_in_a_row += 1
                self.unavailable[reply.problem] += reply.status not in _OF_THE_REQUEST
                if self.client.refused_in_a_row >= _MAX_REFUSED_IN_A_ROW:
                    raise _unavailable(f"{self.client.refused_in_a_row} requests in a row", reply.problem)

    async def reply_to(self, server: openai.AsyncOpenAI, body: Body) -> Reply | None:
        """The reply to a body, a refusal with the tokens of all attempts; None if the budget is used up."""
        used, max_retries = Usage(), self.client.max_retries

        def refused(failed: _FailedAttempt, more: str = "") -> Reply:
            tokens = {"prompt_tokens": used.prompt_tokens, "completion_tokens": used.completion_tokens}
            return Reply(problem=f"{failed}{more}", retry=failed.retry, status=failed.status, **tokens)

        for attempt in range(max_retries + 1):
            await asyncio.sleep(max(0.0, self.resume_at - time.monotonic()))
            async with self.reserved(body) as may_send:
                if not may_send:
                    return None
                self.client.usage.retries += attempt > 0
                try:
                    return await self.attempt(server, body, used)
                except _FailedAttempt as error:
                    failed = error
            wait = failed.wait or random.uniform(0.5, 1) * min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**attempt)
            if not failed.retry:
                return refused(failed)
            if wait > self.client.max_wait:
                return refused(failed, f", and required a wait of {wait:.0f} s")
            if attempt < max_retries:
                self.log_retry(failed)
                if failed.for_all:
                    self.resume_at = max(self.resume_at, time.monotonic() + wait)
                await asyncio.sleep(wait)
        return refused(failed, f" ({max_retries + 1} attempts a request)" if max_retries else "")

    def log_retry(self, failed: _FailedAttempt) -> None:
        """Logs the first retry of a run, since minutes may pass until a request is given up."""
        if not self.client.logged_retry:
            self.client.logged_retry = True
            logger.warning(
                f"requests to {self.client.named_address} are repeated, up to {self.client.max_retries} times each: "
                f"{failed}"
            )

    @asynccontextmanager
    async def reserved(self, body: Body) -> AsyncIterator[bool]:
        """Reserves the tokens of a request as soon as the budget has room; whether the request may be sent."""
        usage = self.client.usage
        async with self.replied:
            await self.replied.wait_for(lambda: usage.spent or usage.has_room(self.most_tokens(body)))
            most = self.most_tokens(body)
            if may_send := not usage.spent:
                usage.reserved += most
                usage.requests += 1
        try:
            yield may_send
        finally:
            usage.reserved -= most * may_send
            async with self.replied:
                self.replied.notify_all()

    def most_tokens(self, body: Body) -> int:
        """Upper bound of the tokens of a request: its bytes and its longest answer, or the largest reply so far."""
        body = {**body, **self.client.extra_body}
        longest = [body.get(name) for name in ("max_tokens", "max_completion_tokens")]
        answer = max((n for n in longest if isinstance(n, int)), default=0)
        return max(self.largest, len(json.dumps(body)) + answer)

    async def attempt(self, server: openai.AsyncOpenAI, body: Body, used: Usage) -> Reply:
        """One request; adds the tokens of its reply to `used` and to the usage of the client."""
        import aiohttp
        import openai

        client = self.client
        sent = {"model": client.model, **body} | client.adapted | dict(client.extra_body)
        sent = {name: value for name, value in sent.items() if value is not None}
        try:
            json.dumps(sent, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise _FailedAttempt(f"the request is not text in UTF-8 ({error})", retry=False) from None
        try:
            # the raw text: openai's types do not check what is in a reply
            text = await asyncio.wait_for(server.post(self.path, cast_to=str, body=sent), client.timeout)
        except openai.APIStatusError as error:
            text = client.without_secrets(error.response.text)
            self.count(used, *tokens_in(text))
            if self.adapts_to(error.status_code, error_reason(text), sent):
                client.usage.requests += 1
                return await self.attempt(server, body, used)
            raise self.failed_status(error, text) from None
        except (TimeoutError, openai.APIConnectionError, aiohttp.ClientError, UnicodeError) as error:
            # aiohttp's own errors are about replies that are no HTTP, or whose status line is not UTF-8
            raise _FailedAttempt(self.connection_failure(error)) from None
        reply = self.read(text)
        if reply.problem:
            reply = self.read(client.without_secrets(text))
        tokens = reply.prompt_tokens, reply.completion_tokens
        self.count(used, *(tokens if any(tokens) else self.estimated(body, reply)))
        self.cut_prompts.add(reply.prompt_tokens, len(json.dumps(body)))
        if reply.problem:
            self.check_fatal(reply.problem, reply.status)
            raise _FailedAttempt(reply.problem, reply.status, reply.retry)
        return reply

    def connection_failure(self, error: Exception) -> str:
        """Why there was no reply; openai calls every failure of aiohttp's connections a time-out."""
        import aiohttp

        causes = [error]
        while causes[-1].__cause__ is not None:
            causes.append(causes[-1].__cause__)
        cause = str(getattr(causes[-1], "message", "") or causes[-1])
        cause = self.client.without_secrets(" ".join(cause.split()))
        if any(isinstance(cause, aiohttp.ClientConnectorError) for cause in causes):
            where = without_secret_values(self.client.address or _OPENAI)
            return f"cannot connect to {where} ({cause}); is the server running, is base_url right?"
        if any(isinstance(cause, TimeoutError) for cause in causes):
            return f"no reply within {self.client.timeout:g} s"
        return f"the connection failed ({cause})"

    def estimated(self, body: Body, reply: Reply) -> tuple[int, int]:
        """The tokens of a reply that reports none, from its characters, for a budget of tokens or money; else 0."""
        usage = self.client.usage
        if usage.max_tokens is None and usage.max_cost is None:
            return 0, 0
        if not self.warned:
            self.warned = True
            logger.warning(
                f"the server reports no tokens; for the budget a token is taken for {CHARACTERS_PER_TOKEN} characters"
            )
        written = max([len(reply.text or ""), *(len(str(choice.get("text", ""))) for choice in reply.choices)])
        return tuple(-(-size // CHARACTERS_PER_TOKEN) for size in (len(json.dumps(body)), written))

    def count(self, used: Usage, prompt_tokens: int, completion_tokens: int) -> None:
        for usage in (self.client.usage, used):
            usage.add(prompt_tokens, completion_tokens)
        self.largest = max(self.largest, prompt_tokens + completion_tokens)

    def adapts_to(self, status: int, reason: str, sent: Body) -> bool:
        """Whether a request without the refused field may succeed; a field of `extra_body` is the user's choice."""
        if self.path != "/chat/completions":  # has neither restriction
            return False
        if "max_tokens" in sent and "max_completion_tokens" in reason and not _OF_THE_PROMPT.search(reason):
            name, change = "max_tokens", {"max_tokens": None, "max_completion_tokens": sent["max_tokens"]}
        elif "temperature" in sent and "temperature" in reason:
            name, change = "temperature", {"temperature": None}
        else:
            return False
        if status not in (400, 422) or name in self.client.extra_body:
            return False
        if name not in self.client.adapted:
            instead = "max_completion_tokens" if name == "max_tokens" else "none"
            logger.warning(f"the server refuses {name} = {sent[name]} ({reason}); from now on it gets {instead}")
            self.client.adapted.update(change)
        return True

    def failed_status(self, error: openai.APIStatusError, text: str) -> _FailedAttempt:
        status = error_status(text, error.status_code)
        if error.status_code == 429 and self.client.usage.answered:
            status = 429  # Alibaba's Model Studio reports a rate limit in OpenAI's words for an account without credit
        problem = f"the server replied {error.status_code}: {error_reason(text)}"
        self.check_fatal(problem, status)
        retry = is_temporary(status)
        wait = retry_after(error.response.headers, text) if retry else None
        for_all = status == 429 and wait is not None
        return _FailedAttempt(problem, status, retry, wait, for_all)

    def check_fatal(self, problem: str, status: int | None) -> None:
        """Raises an `EndpointError` if an error with this status meets every request."""
        if status in _FATAL:
            address = urlsplit(self.client.address or _OPENAI)
            url = without_secret_values(address._replace(path=address.path.rstrip("/") + self.path).geturl())
            key = "key from" if os.environ.get(self.client.api_key_env) else "no key is set in"
            about = f"model {self.client.model!r}, address {url}, {key} {self.client.api_key_env}"
            raise EndpointError(f"{_FATAL[status]}: {problem} ({about})", status) from None


def _unavailable(which: str, reason: str) -> EndpointError:
    return EndpointError(f"{which} were refused; fix this and repeat them: {reason}")


def open_client(settings: ServerClient) -> openai.AsyncOpenAI:
    """The connection to the server."""
    import openai

    key = os.environ.get(settings.api_key_env)
    if not key and not settings.address:
        raise EndpointError(f"no key in {settings.api_key_env}; set it, or the base_url of a server without keys")
    headers, address = dict(settings.headers), urlsplit(settings.address or _OPENAI)
    if key and _AZURE_DEPLOYMENT in address.path and "api-key" not in {name.lower() for name in headers}:
        headers["api-key"] = key
    secrets = [(f"the key in {settings.api_key_env}", key or "")]
    for name, text in secrets + [(f"header {name}", text) for name, text in headers.items()]:
        if wrong := _NOT_IN_HEADERS.search(text):
            raise EndpointError(f"{name} has the character {wrong[0]!r}; expected plain ASCII without line breaks")
    return openai.AsyncOpenAI(
        base_url=urlunsplit(address._replace(query="")),
        api_key=key or "none",
        max_retries=0,
        timeout=settings.timeout,
        http_client=openai.DefaultAioHttpClient(timeout=settings.timeout),  # half the processor time per request
        default_headers=headers,
        default_query=dict(parse_qsl(address.query, keep_blank_values=True)),
    )


def retry_after(headers: Mapping[str, str], body: str = "") -> float | None:
    """Seconds to wait, from the header `retry-after-ms` or `retry-after` (seconds or a date, RFC 9110); else None.

    Google names them in the body (https://cloud.google.com/apis/design/errors, RetryInfo).
    """
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
    delay = _RETRY_DELAY.search(body)
    return float(delay[1]) if delay else None
