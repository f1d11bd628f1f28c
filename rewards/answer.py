"""The answer format: parsing and rendering of verbalized probabilities.

    <think>…optional reasoning…</think><prob_rb_better>0.85</prob_rb_better>

A text has an answer if, outside the reasoning, the opening tag and the closing tag occur exactly once each, in this
order, with a plain ASCII decimal in [0, 1] between them. Anything else is unparsed: every tolerated deviation would be
a second format that a policy can drift to.

Reasoning is ``<think>`` up to the next ``</think>`` (a further ``<think>`` in between is plain text), or all text
before an unmatched ``</think>``, since chat templates of Qwen3 and DeepSeek-R1 open it in the prompt. With reasoning
that never ends there is no answer: the text was truncated within a thought.

A decimal has digits with an optional fraction (``1``, ``0.85``, ``00.5``), or a fraction alone (``.5``); the bounds
are checked on the digits, before rounding to floating point. ``1.``, signs, percent, commas, exponents, underscores
and non-ASCII digits are refused. Every function takes time linear in the text, since completions are untrusted.
"""

import math
import re
from collections.abc import Mapping, Sequence

OPEN_TAG = "<prob_rb_better>"
CLOSE_TAG = "</prob_rb_better>"
CLASS_OPEN_TAG = "<class_probabilities>"
CLASS_CLOSE_TAG = "</class_probabilities>"
THINK_CLOSE = "</think>"

_WHITE_SPACE = " \t\n\r\f\v"  # str.strip() alone would also drop no-break spaces and other non-ASCII space
_UNIT_DECIMAL = re.compile(r"0*1(?:\.0+)?|0+(?:\.[0-9]+)?|\.[0-9]+")
_SEPARATOR = re.compile(rf"[{_WHITE_SPACE}]*,[{_WHITE_SPACE}]*|[{_WHITE_SPACE}]+")
_THINK_TAG = re.compile("</?think>")
_REASONING_MARK = "\0"  # replaces reasoning; in no tag and no decimal, so text does not join across it


def parse_probability(text: str, *, prefilled: bool = False) -> float | None:
    """Read the verbalized probability that response B is better.

    Args:
        text: A completion. Anything that is not a ``str`` has no answer.
        prefilled: Whether the prompt already ended with the opening tag, so that ``text`` continues it.

    Returns:
        The probability in [0, 1], or ``None`` if the text has no answer. Never raises.

    Example:
        >>> parse_probability("<think>B cites a source.</think><prob_rb_better>0.85</prob_rb_better>")
        0.85
        >>> parse_probability("0.85</prob_rb_better>", prefilled=True)
        0.85
    """
    content = _answer_content(text, OPEN_TAG, CLOSE_TAG, prefilled)
    return None if content is None else _unit_decimal(content)


def parse_distribution(text: str, n_classes: int, *, prefilled: bool = False) -> tuple[float, ...] | None:
    """Read a verbalized distribution over ordered classes, such as Likert grades or A / tie / B.

        <class_probabilities>0.1 0.3 0.6</class_probabilities>

    The rules and arguments are those of :func:`parse_probability`; decimals are separated by white space, one comma,
    or both. Their sum may differ from 1 by 0.01 per class, because answers are rounded.

    Returns:
        ``n_classes`` probabilities, normalized to sum to 1, or ``None`` if the text has no answer.

    Raises:
        ValueError: If ``n_classes`` is below 2; never because of the text.

    Example:
        >>> parse_distribution("<class_probabilities>0.25, 0.25, 0.5</class_probabilities>", 3)
        (0.25, 0.25, 0.5)
    """
    if n_classes < 2:
        raise ValueError(f"a distribution needs at least 2 classes, got n_classes={n_classes}")
    content = _answer_content(text, CLASS_OPEN_TAG, CLASS_CLOSE_TAG, prefilled)
    if content is None:
        return None
    weights = [_unit_decimal(field) for field in _SEPARATOR.split(content, maxsplit=n_classes)]
    if len(weights) != n_classes or None in weights:
        return None
    total = math.fsum(weights)
    if total == 0 or abs(total - 1) > 0.01 * n_classes + 1e-9:
        return None
    return tuple(weight / total for weight in weights)


def answer_pattern(decimals: int = 2, *, reasoning: bool = False) -> str:
    """A regular expression of completions with an answer, for servers with constrained generation.

    Narrower than the parser: one digit before the point, at most ``decimals`` (>= 1) after it, no white space. With
    ``reasoning`` (without ``</``) the model generates it and both tags; otherwise the prompt ends with the opening
    tag.

    Example:
        >>> re.fullmatch(answer_pattern(), "0.85</prob_rb_better>") is not None
        True
    """
    digits = f"{{1,{decimals}}}"
    answer = rf"(?:0(?:\.[0-9]{digits})?|1(?:\.0{digits})?){re.escape(CLOSE_TAG)}"
    return rf"(?:[^<]|<+[^/<])*{THINK_CLOSE}{OPEN_TAG}{answer}" if reasoning else answer


def render_answer(value: float, decimals: int = 2) -> str:
    """Render a probability in [0, 1] as in an answer, without tags, with ``decimals`` (>= 0) digits after the point.

    Raises:
        ValueError: If ``value`` is NaN or outside [0, 1], or ``decimals`` is negative.

    Example:
        >>> render_answer(0.85)
        '0.85'
    """
    if not 0 <= value <= 1:
        raise ValueError(f"an answer is a probability in [0, 1], got {value!r}")
    if decimals < 0:
        raise ValueError(f"decimals must be at least 0, got {decimals}")
    return f"{abs(value):.{decimals}f}"  # abs: negative zero would be rendered with a sign


def completion_text(completion: str | Sequence[Mapping]) -> str:
    """Text of a completion in either form that TRL passes to a reward function: the text, or chat messages.

    Of messages, the last one of the assistant (or without a role) is used; its content is a string,
    ``{"type": "text", "text": …}`` blocks, or ``None``. The text is empty if there is none.

    Raises:
        TypeError: If the completion is neither a string nor a list of messages.
    """
    if isinstance(completion, str):
        return completion
    replies = [message for message in _messages(completion) if message.get("role", "assistant") == "assistant"]
    return _content_text(replies[-1]) if replies else ""


def is_prefilled(prompt: str | Sequence[Mapping], open_tag: str = OPEN_TAG) -> bool:
    """Whether a prompt (text, or the last chat message) ends with the opening tag, ignoring trailing white space.

    The completion then starts inside the answer. Use a plain-text prompt for this: TRL closes the last message of a
    conversational prompt and opens a new one.

    Raises:
        TypeError: If the prompt is neither a string nor a list of messages.
    """
    if not isinstance(prompt, str):
        messages = _messages(prompt)
        prompt = _content_text(messages[-1]) if messages else ""
    return prompt.rstrip().endswith(open_tag)


def _answer_content(text: str, open_tag: str, close_tag: str, prefilled: bool) -> str | None:
    if not isinstance(text, str):
        return None
    outside = _outside_reasoning(open_tag + text if prefilled else text)
    if outside is None or outside.count(open_tag) != 1 or outside.count(close_tag) != 1:
        return None
    content, closing, _ = outside.partition(open_tag)[2].partition(close_tag)
    return content.strip(_WHITE_SPACE) if closing else None


def _outside_reasoning(text: str) -> str | None:
    pieces, start, thinking = [], 0, False
    for tag in _THINK_TAG.finditer(text):
        if tag[0] == THINK_CLOSE:
            if not thinking:
                pieces.clear()
            thinking, start = False, tag.end()
        elif not thinking:
            pieces.append(text[start : tag.start()])
            thinking = True
    return None if thinking else _REASONING_MARK.join([*pieces, text[start:]])


def _unit_decimal(field: str) -> float | None:
    return float(field) if _UNIT_DECIMAL.fullmatch(field) else None


def _messages(chat: Sequence[Mapping]) -> list[Mapping]:
    if not isinstance(chat, Sequence) or not all(isinstance(message, Mapping) for message in chat):
        raise TypeError(f"expected a string or a list of chat messages, got {chat!r:.200}")
    return list(chat)


def _content_text(message: Mapping) -> str:
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "".join(block.get("text") or "" for block in content if block.get("type") == "text")
