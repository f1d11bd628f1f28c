"""Texts that may be conversations: a text, or chat messages with roles, as in TRL's conversational datasets."""

from __future__ import annotations

from typing import NamedTuple


class Message(NamedTuple):
    """One turn of a conversation: the role (`system`, `user`, `assistant`, …) and the text."""

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
