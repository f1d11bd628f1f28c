"""What the reply of an OpenAI-compatible server holds: an answer, or the reason why there is none.

Servers differ in how they say so: an error with status 200, a content filter without choices, other words for a
cut-off, reasoning in a field of its own, content as a list of parts, an error body of any shape. Pure functions of the
text of a reply.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain

_REASONS = (
    "message",
    "detail",
    "details",
    "msg",
    "error_description",
    "error",
    "errors",
    "error_msg",
    "status_msg",
    "reason",
    "title",
    "description",
)
# of a general reason; as text `param` is a field's name
_MORE_SPECIFIC = ("errors", "details", "detail", "innererror", "reason", "param", "cause")
_REASONING = (
    "reasoning_content",  # vLLM, SGLang, DeepSeek
    "reasoning",  # OpenRouter, vLLM, Ollama
    "reasoning_details",  # OpenRouter
    "thinking",
)
# the words of OpenAI, Gemini, Anthropic, Mistral, Cohere, Bedrock and Zhipu
_CUT_OFF = (
    "length",
    "max_tokens",
    "max_output_tokens",
    "model_length",
    "model_context_window_exceeded",
    "error_limit",
)
_FILTERED = (
    "content_filter",
    "content_filtered",
    "safety",
    "recitation",
    "blocklist",
    "prohibited_content",
    "spii",
    "refusal",
    "blocked",
    "guardrail_intervened",
    "error_toxic",
    "sensitive",
)
_FINISH_REASONS = dict.fromkeys(_CUT_OFF, "length") | dict.fromkeys(_FILTERED, "content_filter")
_AROUND_THE_WORD = re.compile(r"^finish_?reason[._]|:.*", re.DOTALL)  # FinishReason.SAFETY; content_filter: SPII
_NO_CREDIT = 402
_STATUS_OF = {  # of errors that have a word in place of a status
    _NO_CREDIT: re.compile(
        "insufficient_quota|billing_hard_limit_reached|billing_not_active"  # OpenAI
        "|exceeded_current_quota_error|budget_exceeded",  # Moonshot, LiteLLM
        re.IGNORECASE,
    ),
    404: re.compile("unexpected endpoint or method", re.IGNORECASE),  # LM Studio
    400: re.compile("invalid_request_error|invalid_argument|BadRequestError", re.IGNORECASE),
}
_CREDIT_USED = re.compile(  # in the reason of errors with status 400, 403 or 429
    "credit balance is too low to access"  # Anthropic
    "|has either used all available credits|doesn't have any credits",  # xAI
    re.IGNORECASE,
)
_STATUS = re.compile(r"[45]\d\d")
_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)
_LONGEST_HEAD = 2000  # characters of a page in which its title is looked for: the time grows with their square
_TOKENS = (("prompt_tokens", "input_tokens"), ("completion_tokens", "output_tokens"))

_OTHER_FORMAT = (KeyError, IndexError, TypeError, AttributeError, OverflowError, RecursionError)

_ROUNDING = 0.05  # of log-probabilities in bfloat16
TOKEN_ID = "token_id:"  # in front of a token that is given by its id


@dataclass(frozen=True)
class Reply:
    """A reply, or why there is none.

    Attributes:
        text: The visible completion; empty if there is none.
        problem: Why there is none.
        retry: Whether the same request may succeed later.
        finish_reason: `length` if the server cut the answer off, `content_filter` if it filtered it; otherwise as the
            server reports it.
        prompt_tokens, completion_tokens: As the server reports them, 0 if it does not.
        choices: All choices of a reply of `/v1/completions`, in the order of the prompts.
        status: HTTP status, or that of an error in a reply with status 200; None if the server did not reply.
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

    def found(text: str = "", finish: object = None, **failure: object) -> Reply:
        used = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}
        return Reply(text, finish_reason=_finish_reason(finish), **used, **failure)

    body = _json_of(reply)
    try:
        if failure := _failure_in(body):
            return found(**failure)
        choice = body["choices"][0]
        if failure := _failure_in({"error": choice.get("error")}):
            return found(**failure)
        finish, message = choice.get("finish_reason"), _message_in(choice)
        text = _text_of(message.get("content")) or message.get("refusal") or ""
        if text.strip():
            return found(text, finish)
        problem, retry = _why_empty(choice, message, completion_tokens, _reasoning_tokens(body.get("usage")))
    except _OTHER_FORMAT:
        return found(problem=f"the reply is no chat completion: {reply[:80]!r}", retry=True)
    return found("", finish, problem=problem, retry=retry)


def read_completions(reply: str, n_prompts: int, *, log_probs: bool = False) -> Reply:
    """Reads the text of a reply of `/v1/completions` to a number of prompts; never raises.

    Every choice has a text. The log-probabilities of its next tokens are numbers, if it has any. Older versions of
    llama.cpp reply with a list of completions, one for each prompt.

    Args:
        log_probs: Every choice must have them.
    """
    prompt_tokens, completion_tokens = tokens_in(reply)
    bodies = _bodies_of(reply)
    used = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}
    try:
        if failure := next(filter(None, map(_failure_in, bodies)), None):
            return Reply(**failure, **used)
        choices = sorted(chain.from_iterable(body["choices"] for body in bodies), key=lambda choice: choice["index"])
        text, finish = choices[0]["text"], _finish_reason(choices[0].get("finish_reason"))
        for choice in choices:
            if failure := _failure_in({"error": choice.get("error")}):
                return Reply(**failure, **used)
            if (top := next_tokens_in(choice)) is not None or log_probs:
                _check_log_probs(top)
                if problem := _no_distribution(top):
                    return Reply(problem=problem, **used)
    except _OTHER_FORMAT:
        return Reply(problem=f"the reply is no completion: {reply[:80]!r}", retry=True, **used)
    if len(choices) != n_prompts or not isinstance(text, str):
        return Reply(problem=f"{len(choices)} completions for {n_prompts} prompts", **used)
    return Reply(text, finish_reason=finish, choices=tuple(choices), **used)


def next_tokens_in(choice: Mapping) -> Mapping[str, float] | None:
    """The most likely next tokens of a choice of `/v1/completions`, with log-probabilities; None if it has none.

    llama.cpp lists them as in a chat completion, with the ids of the tokens.
    """
    log_probs = choice.get("logprobs") or {}
    if top := log_probs.get("top_logprobs"):
        return top[0]
    found: dict[str, float] = {}
    if content := log_probs.get("content"):
        for token in reversed(content[0].get("top_logprobs") or []):  # of equal texts the likeliest stays
            found[f"{TOKEN_ID}{token['id']}" if "id" in token else token["token"]] = token["logprob"]
    return found or None


def tokens_in(reply: str) -> tuple[int, int]:
    """Prompt and completion tokens that a reply reports in `usage`, 0 if it reports none.

    xAI, and gateways to Gemini, count the tokens of reasoning in the total alone.
    """
    used = [_tokens_of(body.get("usage")) for body in _bodies_of(reply) if isinstance(body, Mapping)]
    return sum(prompt for prompt, _ in used), sum(completion for _, completion in used)


def _tokens_of(usage: object) -> tuple[int, int]:
    if not isinstance(usage, Mapping):
        return 0, 0
    prompt, completion = (next(filter(None, (_whole(usage.get(name)) for name in names)), 0) for names in _TOKENS)
    total = _whole(usage.get("total_tokens"))
    return prompt, max(completion, total - prompt) if prompt and total else completion


def error_status(body: str, status: int) -> int:
    """The status of an error, from the body and the status of the reply: 402 if the account has no credit.

    From 500 on the server itself failed, whatever a server behind it replied.
    """
    return _NO_CREDIT if status < 500 and _status_in(_json_of(body)) == _NO_CREDIT else status


def is_temporary(status: int) -> bool:
    """Whether an error with this status may pass."""
    return status in (408, 409, 425, 429) or (status >= 500 and status != 501)  # 501: not implemented


def error_reason(body: str) -> str:
    """The reason in the body of an error, at most 300 characters of one line."""
    title = _TITLE.search(body[:_LONGEST_HEAD])  # of a page of a proxy
    reason = _shallow_reason_in(_json_of(body)) or (title[1] if title else body)
    return " ".join(reason.split())[:300] or "no reason"


def _shallow_reason_in(body: object) -> str:
    """`reason_in`; empty for a body that is nested too deeply."""
    try:
        return reason_in(body)
    except RecursionError:
        return ""


def reason_in(body: object) -> str:
    """The first text under one of the keys that servers use for a reason, with more specific ones; empty if none.

    FastAPI and Mistral add the place of a wrong field as `loc`, OpenRouter the reply of the model's provider as
    `metadata.raw`.
    """
    if isinstance(body, str):
        return body
    if isinstance(body, list):
        return "; ".join(filter(None, map(reason_in, body)))
    if not isinstance(body, Mapping):
        return ""
    keys = [key for key in dict.fromkeys((*_REASONS, *_MORE_SPECIFIC)) if key in body]
    found = {key: reason_in(body[key]) for key in keys if key != "param" or not isinstance(body[key], str)}
    others = [value for key, value in body.items() if key not in found and isinstance(value, list | dict)]
    unnamed = () if any(key in _REASONS for key in keys) else map(reason_in, others)
    reason = next(filter(None, chain(found.values(), unnamed)), "")
    if reason and isinstance(place := body.get("loc"), list) and place:
        reason = f"{'.'.join(map(str, place))}: {reason}"
    metadata = body.get("metadata")
    raw = metadata.get("raw") if isinstance(metadata, Mapping) else None
    of_provider = error_reason(raw) if raw and isinstance(raw, str) else reason_in(raw)
    parts = dict.fromkeys((reason, *(found.get(key, "") for key in _MORE_SPECIFIC), of_provider))
    return ": ".join(part for part in parts if part and not any(part in other for other in parts if other != part))


def _json_of(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _bodies_of(reply: str) -> list:
    """The items of a list in JSON; one item for anything else."""
    body = _json_of(reply)
    return body if isinstance(body, list) else [body]


def _whole(number: object) -> int:
    """A number, or a text of one, as a whole number; 0 for everything else."""
    try:
        return max(0, int(float(number)))
    except (TypeError, ValueError, OverflowError):
        return 0


def _check_log_probs(top: Mapping[str, object]) -> None:
    """Raises TypeError if tokens have no numbers, or ids that are none."""
    for token, value in top.items():
        if not isinstance(value, int | float) or math.isnan(value):
            raise TypeError("no log-probability")
        if token.startswith(TOKEN_ID) and not token.removeprefix(TOKEN_ID).isdecimal():
            raise TypeError("no token id")


def _no_distribution(top: Mapping[str, float]) -> str | None:
    """Why numbers cannot be log-probabilities of one token; None if they can."""
    highest = max(top.values(), default=0.0)
    if highest > _ROUNDING:
        return (
            f"the log-probabilities are up to {highest:g}; expected none above 0 (are they probabilities or scores?)"
        )
    total = math.fsum(map(math.exp, top.values()))
    if total > 1 + _ROUNDING:
        return f"the probabilities of one token add up to {total:.3g}; expected at most 1"
    return None


def _finish_reason(word: object) -> str | None:
    """The finish reason in OpenAI's words if the answer was cut off or filtered, else the server's own."""
    if not isinstance(word, str):
        return None
    return _FINISH_REASONS.get(_AROUND_THE_WORD.sub("", word.lower().replace("-", "_")), word)


def _message_in(choice: Mapping) -> Mapping:
    """The message of a choice: some servers call it `delta`, give only its text, or leave out an empty one."""
    if message := choice.get("message") or choice.get("delta"):
        return message
    return {"content": choice.get("text") if choice.get("finish_reason") else choice["text"]}


def _text_of(content: object) -> str:
    """The text of a message, or its refusal, without the thinking parts of a list of parts."""
    if isinstance(content, list):
        visible = [part for part in content if part.get("type") in (None, "text", "output_text")]
        refusals = [part.get("refusal") or "" for part in content if part.get("type") == "refusal"]
        return "".join(part.get("text") or "" for part in visible if not part.get("thought")) or "".join(refusals)
    if content is not None and not isinstance(content, str):
        raise TypeError("content is neither text nor a list of parts")
    return content or ""


def _reasoning_tokens(usage: object) -> int:
    """The tokens of reasoning that a server reports, 0 if it reports none."""
    if not isinstance(usage, Mapping):
        return 0
    details = [usage.get(f"{kind}_tokens_details") for kind in ("completion", "output")]
    return max((_whole(part.get("reasoning_tokens")) for part in details if isinstance(part, Mapping)), default=0)


def _why_empty(choice: Mapping, message: Mapping, tokens: int, reasoning_tokens: int) -> tuple[str, bool]:
    """Why a completion is empty, and whether to retry: a model that answers so once answers so again."""
    reported, content = choice.get("finish_reason"), message.get("content")
    finish = _finish_reason(reported)
    field = next((name for name in _REASONING if message.get(name)), None)
    if isinstance(content, list) and any(part.get("type") in ("thinking", "reasoning") for part in content):
        field = field or "content"
    where = f" (all of it in {field})" if field else ""
    if finish == "length":
        return f"cut off at {tokens} tokens{where}, finish_reason {reported}; raise --max_answer_tokens", False
    if finish == "content_filter" or _is_filtered(choice):
        return f"the content filter of the server stopped the answer, finish_reason {reported}", False
    if reasoning_tokens and reasoning_tokens >= tokens:  # with `stop`, as some gateways call every end
        size = f" ({reasoning_tokens:,} tokens)"
        return f"the reply is only reasoning{size}{where}, finish_reason {reported}; raise --max_answer_tokens", False
    if field:
        return (
            f"the reply is only reasoning{where}, finish_reason {reported}; let the server reason less or not",
            False,
        )
    if message.get("tool_calls") or message.get("function_call"):
        return f"the reply is a tool call, finish_reason {reported}", False
    return f"the reply is empty, finish_reason {reported}", True


def _is_filtered(body: object) -> bool:
    """Whether a content filter is reported anywhere in the body."""
    if isinstance(body, list):
        return any(map(_is_filtered, body))
    if not isinstance(body, Mapping):
        return False
    return body.get("filtered") is True or bool(body.get("blockReason")) or any(map(_is_filtered, body.values()))


def _failure_in(body: object) -> dict[str, object]:
    """Problem, retry and status of a body that is an error, or has no choices and a reason; empty for any other."""
    if not isinstance(body, Mapping):
        return {}
    error = body.get("error")
    if not (any(error.values()) if isinstance(error, Mapping) else error):  # also one of empty fields
        if body.get("choices"):
            return {}
        if _is_filtered(body):
            return {"problem": "the content filter of the server stopped the prompt (content_filter)"}
        if not reason_in(body):
            return {}
    status = _status_in(body)  # of an unknown error that may pass: None
    problem = f"the server replied: {error_reason(json.dumps(body))}"
    return {"problem": problem, "retry": status is None or is_temporary(status), "status": status or 200}


def _status_in(body: object) -> int | None:
    """The status that an error gives as a number or a word, or 402 by its reason; None if it gives none."""
    if not isinstance(body, Mapping):
        return None
    parts = [part for part in (body.get("error"), body) if isinstance(part, Mapping)]
    values = [part.get(name) for part in parts for name in ("code", "status", "type", "error")]
    words = [str(value) for value in values if isinstance(value, str | int)]
    found = [status for status, word in _STATUS_OF.items() if any(map(word.match, words))]
    if _NO_CREDIT in found or _CREDIT_USED.search(_shallow_reason_in(body)):
        return _NO_CREDIT
    return next((int(word) for word in words if _STATUS.fullmatch(word)), found[0] if found else None)
