"""Votes of visitors and experts on two models' conversations: Chatbot Arena in its editions, and MT-Bench.

The prompt is what both conversations share at their beginning; the responses are the rest, several messages if there
are several turns.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import zip_longest

from autorater.data.fields import Row, bad_value, count_in, decoded, given_in, name_in, number_of
from autorater.data.layouts.layout import Layout
from autorater.data.layouts.votes import VOTES, counts, votes_in
from autorater.data.messages import Conversation, Message, common_beginning, text_or_messages


def conversations(row: Row) -> Iterator[Row]:
    """`conversation_a` and `conversation_b` up to `turn`, which counts the turns that were judged."""
    turn = given_in(row, "turn")
    turns = None if turn is None else count_in(turn, "turn", "turns")
    sides = [judged_turns(row, f"conversation_{side}", turns) for side in "ab"]
    prompt, a, b = common_beginning(*sides)
    if not prompt:
        raise bad_value("conversation_b", row["conversation_b"], "the same first message as in conversation_a")
    yield {"prompt": prompt, "response_a": a, "response_b": b, **votes_in(row, "winner")}


def mt_bench(row: Row) -> Iterator[Row]:
    """The same; a question has one id, so that of a pair also names turn and models. GPT-4's `judge` is a list."""
    judge = decoded(row.get("judge"))
    if isinstance(judge, list):
        row = row | {"judge": "/".join(map(str, judge))}
    parts = (name_in(row, column) or "?" for column in ("question_id", "turn", "model_a", "model_b"))
    id = "/".join(parts)
    yield from ({"id": id, "annotator": row.get("judge"), **found} for found in conversations(row))


def turn_lists(row: Row) -> Iterator[Row]:
    """JSON lists of the turns in `prompt`, `response_a` and `response_b`; null is empty. A test file has no winner."""
    asked, a, b = (_list(row, column) for column in ("prompt", "response_a", "response_b"))
    if len(asked) == 1:
        texts = {"prompt": asked[0], "response_a": "\n\n".join(a), "response_b": "\n\n".join(b)}
    else:
        both = [tuple(_alternating(asked, answers)) for answers in (a, b)]
        texts = dict(zip(("prompt", "response_a", "response_b"), common_beginning(*both), strict=True))
    got = [row.get(f"winner_{side}") for side in ("model_a", "model_b", "tie")]
    if got == [None] * 3:
        yield texts | {"no_vote": "no winner"}
        return
    wins = [value is True or number_of(value) == 1 or str(value).lower() == "true" for value in got]
    if sum(wins) != 1:
        raise bad_value("winner_model_a, winner_model_b, winner_tie", got, "1 in one of them and 0 in the others")
    yield texts | counts(*next(vote for vote, won in zip(VOTES.values(), wins, strict=True) if won))


def judged_turns(row: Row, column: str, turns: int | None) -> Conversation:
    """The messages of a conversation up to the answer of this turn, from 1; None: all."""
    messages = text_or_messages(decoded(row.get(column)), column)
    if isinstance(messages, str):
        raise bad_value(column, row.get(column), "a list of messages")
    if turns is None:
        return messages
    ends = [i for i, message in enumerate(messages, 1) if message.role == "assistant"]
    if not 1 <= turns <= len(ends):
        raise bad_value("turn", row["turn"], f"a turn from 1 to {len(ends)}, the answers in {column}")
    return messages[: ends[turns - 1]]


def is_turns(value: object) -> bool:
    """Whether a value is a list of the texts of all turns, in which a missing answer is null."""
    return isinstance(value, list) and bool(value) and all(text is None or isinstance(text, str) for text in value)


def _list(row: Row, column: str) -> list[str]:
    value = row[column]
    try:
        value = json.loads(value) if isinstance(value, str) else decoded(value)
    except ValueError:
        raise bad_value(column, value, "a JSON list of the texts of all turns") from None
    if not is_turns(value):
        raise bad_value(column, row[column], "a JSON list of the texts of all turns")
    return [text or "" for text in value]


def _alternating(asked: list[str], answered: list[str]) -> Iterator[Message]:
    for question, answer in zip_longest(asked, answered, fillvalue=""):
        yield Message("user", question)
        yield Message("assistant", answer)


def winner(row: Row) -> Iterator[Row]:
    """`winner` alone; the texts are columns."""
    yield votes_in(row, "winner")


_SIDES = {"model_a": "model_a", "model_b": "model_b"}
_NAMED = {"response_a": "conversation_a", "response_b": "conversation_b"}
BATTLE = ("model_a", "model_b", "winner", "conversation_a", "conversation_b")
"""Columns of every edition; the others name the row, and the turn that was judged."""

LAYOUTS = (
    Layout(
        "lmsys_55k", ("prompt", "response_a", "response_b", "winner_model_a", "winner_model_b", "winner_tie"),
        "https://huggingface.co/datasets/lmarena-ai/arena-human-preference-55k", turn_lists, {"id": "id", **_SIDES},
    ),
    Layout(
        "chatbot_arena", ("question_id", *BATTLE, "language"),
        "https://huggingface.co/datasets/lmsys/chatbot_arena_conversations", conversations,
        {"id": "question_id", "annotator": "judge", **_SIDES}, _NAMED,
    ),
    Layout(
        "chatbot_arena_140k", ("id", *BATTLE, "language"),
        "https://huggingface.co/datasets/lmarena-ai/arena-human-preference-140k", conversations,
        {"id": "id", **_SIDES}, _NAMED,
    ),
    Layout(
        "mt_bench", ("question_id", *BATTLE),
        "https://huggingface.co/datasets/lmsys/mt_bench_human_judgments", mt_bench,
        {"topic": "question_id", **_SIDES}, {**_NAMED, "annotator": "judge"},
    ),
    Layout(
        "ppe", ("question_id", "prompt", "response_1", "response_2", "winner"),
        "https://huggingface.co/datasets/lmarena-ai/PPE-Human-Preference-V1", winner,
        {"id": "question_id", "prompt": "prompt", "response_a": "response_1", "response_b": "response_2", **_SIDES},
    ),
)  # fmt: skip
