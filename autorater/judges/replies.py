"""What the reply of an OpenAI-compatible server holds: an answer, or the reason why there is none.

Servers differ in how they say so: an error with status 200, a content filter without choices, reasoning in a field of
its own, content as a list of parts, an error body of any shape. Pure functions of the text of a reply.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

_REASONS = (
    "message",
    "detail",
    "details",
    "msg",
    "error_description",
    "error",
    "errors",
    "error_msg",
    "reason",
    "title",
)
_REASONING = ("reasoning_content", "reasoning", "thinking")  # vLLM, SGLang, DeepSeek; OpenRouter, vLLM; Ollama

TOKEN_ID = "token_id:"  # in front of a token that is given by its id


@dataclass(frozen=True)
class Reply:
    """A reply, or why there is none.

    Attributes:
        text: The visible completion; empty if there is none.
        problem: Why there is none.
        retry: Whether the same request may succeed later.
        finish_reason, prompt_tokens, completion_tokens: As the server reports them; the tokens are 0 if it does not.
        choices: All choices of a reply of `/v1/completions`, in the order of the prompts.
        status: HTTP status; None if the server did not reply.
    """

    text: str = ""
    problem: str | None = None
    retry: bool = False
    finish_reason: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    choices: tuple[Mapping, ...] = ()
    status: int | None = 200


def read_reply(reply: str) -> Reply:
    """Reads the text of a reply; never raises."""
    prompt_tokens, completion_tokens = tokens_in(reply)

    def found(text: str = "", problem: str | None = None, retry: bool = False, finish: object = None) -> Reply:
        finish_reason = finish if isinstance(finish, str) else None
        return Reply(text, problem, retry, finish_reason, prompt_tokens, completion_tokens)

    body = _json_of(reply)
    if error := _error_in(body):
        return found(**error)
    try:
        if not body["choices"] and _is_filtered(body):
            return found(problem="the content filter of the server stopped the prompt (content_filter)")
        choice = body["choices"][0]
        finish, message = choice.get("finish_reason"), choice["message"]
        if error := _error_in(choice):
            return found(**error)
        text = _text_of(message.get("content")) or message.get("refusal") or ""
        if text.strip():
            return found(text, finish=finish)
        problem, retry = _why_empty(choice, message, completion_tokens)
    except (KeyError, IndexError, TypeError, AttributeError):
        return found(problem=f"the reply is no chat completion: {reply[:80]!r}", retry=True)
    return found(problem=problem, retry=retry, finish=finish)


def read_completions(reply: str, n_prompts: int, *, log_probs: bool = False) -> Reply:
    """Reads the text of a reply of `/v1/completions` to a number of prompts; never raises.

    Every choice has a text. The log-probabilities of its next tokens are numbers, if it has any.

    Args:
        log_probs: Every choice must have them.
    """
    prompt_tokens, completion_tokens = tokens_in(reply)
    body = _json_of(reply)
    used = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}
    if error := _error_in(body):
        return Reply(**error, **used)
    try:
        choices = sorted(body["choices"], key=lambda choice: choice["index"])
        text, finish = choices[0]["text"], choices[0].get("finish_reason")
        for choice in choices:
            if (top := next_tokens_in(choice)) is not None or log_probs:
                _check_log_probs(top)
    except (KeyError, IndexError, TypeError, AttributeError):
        return Reply(problem=f"the reply is no completion: {reply[:80]!r}", retry=True, **used)
    if len(choices) != n_prompts or not isinstance(text, str):
        return Reply(problem=f"{len(choices)} completions for {n_prompts} prompts", **used)
    return Reply(text, finish_reason=finish, choices=tuple(choices), **used)


def next_tokens_in(choice: Mapping) -> Mapping[str, float] | None:
    """The most likely next tokens of a choice of `/v1/completions`, with log-probabilities; None if it has none."""
    top = (choice.get("logprobs") or {}).get("top_logprobs")
    return top[0] if top else None


def tokens_in(reply: str) -> tuple[int, int]:
    """Prompt and completion tokens that a reply reports in `usage`, 0 if it reports none."""
    body = _json_of(reply)
    usage = body.get("usage") if isinstance(body, Mapping) else None
    counts = [usage.get(name) if isinstance(usage, Mapping) else 0 for name in ("prompt_tokens", "completion_tokens")]
    prompt, completion = (
        int(count) if isinstance(count, int | float) and math.isfinite(count) else 0 for count in counts
    )
    return prompt, completion


def error_reason(body: str) -> str:
    """The reason in the body of an error, at most 300 characters of one line."""
    parsed = _json_of(body)
    return " ".join((reason_in(parsed) or body).split())[:300] or "no reason"


def reason_in(body: object) -> str:
    """The first text under one of the keys that servers use for a reason; empty if there is none."""
    if isinstance(body, str):
        return body
    if isinstance(body, list):
        return "; ".join(filter(None, map(reason_in, body)))
    if not isinstance(body, Mapping):
        return ""
    known = [body[key] for key in _REASONS if key in body] or [v for v in body.values() if isinstance(v, list | dict)]
    return next(filter(None, map(reason_in, known)), "")


def _json_of(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _check_log_probs(top: Mapping[str, object]) -> None:
    """Raises TypeError if tokens have no numbers, or ids that are none."""
    for token, value in top.items():
        if not isinstance(value, int | float) or math.isnan(value):
            raise TypeError("no log-probability")
        if token.startswith(TOKEN_ID) and not token.removeprefix(TOKEN_ID).isdecimal():
            raise TypeError("no token id")


def _text_of(content: object) -> str:
    """The text of a message, without the thinking parts of a list of parts."""
    if isinstance(content, list):
        return "".join(part["text"] for part in content if part.get("type") in ("text", "output_text"))
    if content is not None and not isinstance(content, str):
        raise TypeError("content is neither text nor a list of parts")
    return content or ""


def _why_empty(choice: Mapping, message: Mapping, tokens: int) -> tuple[str, bool]:
    """Why a completion is empty, and whether to retry: a model that answers so once answers so again."""
    finish = choice.get("finish_reason")
    field = next((name for name in _REASONING if message.get(name)), None)
    where = f" (all of it in {field})" if field else ""
    if finish == "length":
        return f"cut off at {tokens} tokens{where}, finish_reason length; raise --max_answer_tokens", False
    if finish == "content_filter" or _is_filtered(choice):
        return "the content filter of the server stopped the answer, finish_reason content_filter", False
    if field:
        return f"the reply is only reasoning{where}, finish_reason {finish}; let the server reason less or not", False
    if message.get("tool_calls"):
        return f"the reply is a tool call, finish_reason {finish}", False
    return f"the reply is empty, finish_reason {finish}", True


def _is_filtered(body: object) -> bool:
    """Whether a content filter is reported anywhere in the body."""
    if isinstance(body, list):
        return any(map(_is_filtered, body))
    if not isinstance(body, Mapping):
        return False
    return body.get("filtered") is True or bool(body.get("blockReason")) or any(map(_is_filtered, body.values()))


def _error_in(body: object) -> dict[str, object]:
    """Problem and retry of a body or a choice with an error; empty without one."""
    if not isinstance(body, Mapping) or not body.get("error"):
        return {}
    return {"problem": f"the server replied: {reason_in(body)}", "retry": _is_temporary(body["error"])}


def _is_temporary(error: object) -> bool:
    """Whether an error in a reply with status 200 may pass: unless it has a status that says otherwise."""
    code = error.get("code") if isinstance(error, Mapping) else None
    status = int(code) if str(code).isdecimal() else 500
    return status in (408, 409, 425, 429) or status >= 500
