"""Texts that may be conversations: a text, or chat messages with roles, as in TRL's conversational datasets.

    [{"role": "user", "content": "Hi."}]                                  messages
    [{"role": "user", "content": [{"type": "text", "text": "Hi."}]}]      content in parts, all of which are text
    [{"from": "human", "value": "Hi."}]                                   ShareGPT's names, as TRL accepts them
    "\\n\\nHuman: Hi.\\n\\nAssistant: Hello."                                 a transcript of HH-RLHF

Deliberately left out: images, tool calls and other content that is not text; they are errors.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from autorater.data.errors import DataError
from autorater.data.fields import bad_value, check_unicode, decoded, shortened

ROLES = ("system", "developer", "user", "assistant", "tool")
_SHAREGPT = {"human": "user", "gpt": "assistant"}
_ANSWER = re.compile(  # where an answer begins in transcripts of any kind
    r"(?:(?:^|\n|#)[ #]*(?:Assistant|ASSISTANT|assistant|AI|Bot|GPT|助手|助理)[ \u00a0]?[:：]|<\|assistant\|>"
    r"|<\|im_start\|>assistant|<\|start_header_id\|>assistant<\|end_header_id\|>|<start_of_turn>model|\[/INST\])\s*"
)
_BESIDE_TEXT = ("tool_calls", "function_call", "images", "image", "audio", "videos")
_TURN = re.compile(r"(?:\r?\n){2}(Human|Assistant):")


class Message(NamedTuple):
    """One turn of a conversation: the role (one of `ROLES`) and the text."""

    role: str
    content: str


Conversation = tuple[Message, ...]  # at least one message
Text = str | Conversation  # a prompt or a response


def plain_text(text: Text) -> str:
    """The text, or the turns of a conversation with their roles; for lengths, word counts and reports.

    A conversation of a single user or assistant message is its content. A judge prompt does not use this: there a turn
    must not be able to forge a role (`autorater.prompts.encoder`).
    """
    if isinstance(text, str):
        return text
    if len(text) == 1 and text[0].role in ("user", "assistant"):
        return text[0].content
    return "\n\n".join(f"{message.role.capitalize()}: {message.content}" for message in text)


def as_json(value: Text | object) -> object:
    """A value of a pair for JSON: messages become mappings."""
    return [message._asdict() for message in value] if isinstance(value, tuple) else value


def edited(text: Text, edit: Callable[[str], str]) -> Text:
    """The text, or the conversation with its last message, after an edit."""
    if isinstance(text, str):
        return edit(text)
    *earlier, last = text
    return (*earlier, last._replace(content=edit(last.content)))


def text_or_messages(value: object, column: str, *, blank: bool = False) -> Text:
    """A text or the messages of a conversation.

    Args:
        value: The value of the column: a text, or a list of messages.
        column: Its name, for the error.
        blank: Accept a text, or messages, without any visible character.

    Raises:
        DataError: If it is neither, or a message is invalid; names the column, the message and the value.
    """
    if not isinstance(value, str):
        value = decoded(value)
    if isinstance(value, str) and (blank or not (not value or value.isspace())):
        return check_unicode(value, column)
    if isinstance(value, list | tuple) and value and not isinstance(value[0], str):
        messages = tuple(_message(message, f"{column}[{i}]") for i, message in enumerate(value))
        if blank or any(message.content.strip() for message in messages):
            return messages
    raise bad_value(column, value, "text that is not blank, or a list of messages with role and content")


def _message(value: object, column: str) -> Message:
    if isinstance(value, Message):
        return value
    if not isinstance(value, Mapping) or not ("role" in value or "from" in value):
        raise bad_value(column, value, "a message with role and content")
    given = value.get("role", value.get("from"))
    role = _SHAREGPT.get(given.lower(), given.lower()) if isinstance(given, str) else given
    if role not in ROLES:
        raise bad_value(column, given, f"a role out of {', '.join(ROLES)}")
    content = value.get("content", value.get("value"))
    if other := next((name for name in _BESIDE_TEXT if value.get(name)), None):
        raise bad_value(column, {other: value[other]}, "a message of text; tool calls, images and audio are not read")
    if not isinstance(content, str):
        content = _joined(decoded(content), column)
    return Message(role, check_unicode(content, column))


def _joined(content: object, column: str) -> str:
    """The text of a message's content in parts."""
    parts = content if isinstance(content, list | tuple) else None
    texts = [part.get("text") if isinstance(part, Mapping) else part for part in parts or ()]
    are_text = all(part.get("type", "text") == "text" for part in parts or () if isinstance(part, Mapping))
    if parts is None or not are_text or not all(isinstance(text, str) for text in texts):
        raise DataError(
            f"column {column!r}: got the content {shortened(content)}; expected text, or parts of type text only"
        )
    return "".join(texts)


def transcript(text: str) -> Conversation | None:
    """The messages of an HH-RLHF transcript; None for any other text.

    Turns begin with "\\n\\nHuman:" or "\\n\\nAssistant:" (https://github.com/anthropics/hh-rlhf). Blanks around a turn
    are not part of it.
    """
    if not text.lstrip().startswith(("Human:", "Assistant:")):
        return None
    _, *turns = _TURN.split("\n\n" + text.lstrip())
    roles = {"Human": "user", "Assistant": "assistant"}
    messages = tuple(
        Message(roles[role], content.strip()) for role, content in zip(turns[::2], turns[1::2], strict=True)
    )
    return messages if len(messages) > 1 else None


def common_beginning(first: Text, second: Text) -> tuple[Text, Text, Text]:
    """Splits two texts at the end of what they share, as `trl.extract_prompt` does: (prompt, first, second).

    Messages are compared whole; of equal conversations the last message is kept apart. Conversations that part at a
    turn of the user are split before the shared answer above it, so that the assistant begins. Of two texts the shared
    characters are the prompt, without a blank at its end; of two transcripts up to where the last answer begins.
    """
    longest = min(len(first), len(second))
    shared = next((i for i in range(longest) if first[i] != second[i]), longest)
    if isinstance(first, str):
        turns = [turn.end() for turn in _ANSWER.finditer(first, 0, shared)]
        shared = turns[-1] if turns else shared - first[:shared].endswith(" ")
    else:
        shared = min(shared, longest - 1)
        answers = [i for i in range(1, shared + 1) if first[i].role == second[i].role == "assistant"]
        shared = max(answers, default=shared)
    return first[:shared], first[shared:], second[shared:]
