"""Votes of visitors and experts on two models' conversations: the arenas of LMArena in their editions, compar:IA, and
MT-Bench.

The prompt is what both conversations share at their beginning; the responses are the rest, several messages if there
are several turns.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import zip_longest

from autorater.data.fields import Row, bad_value, count_in, decoded, given_in, name_in, number_of
from autorater.data.layouts.layout import Layout
from autorater.data.layouts.votes import VOTES, counts, votes_in
from autorater.data.messages import Conversation, Message, common_beginning, text_or_messages


def conversations(row: Row) -> Iterator[Row]:
    """`conversation_a` and `conversation_b` up to `turn`, which counts the turns that were judged."""
    yield _texts(row, "conversation") | votes_in(row, "winner")


def search_arena(row: Row) -> Iterator[Row]:
    """The same with `messages_a` and `messages_b`."""
    yield _texts(row, "messages") | votes_in(row, "winner")


def comparia(row: Row) -> Iterator[Row]:
    """The vote is the name of a model in `chosen_model_name`, or `both_equal`."""
    chosen, names = name_in(row, "chosen_model_name"), [name_in(row, f"model_{side}_name") for side in "ab"]
    if _is_true(row["both_equal"]):
        vote = counts(*VOTES["tie"])
    elif chosen is None:
        vote = {"no_vote": "chosen_model_name is null"}
    elif names[0] == names[1]:
        vote = {"no_vote": "both models have one name"}
    elif chosen in names:
        vote = counts(*VOTES["AB"[names.index(chosen)]])
    else:
        raise bad_value("chosen_model_name", chosen, f"model_a_name or model_b_name, {names[0]!r} or {names[1]!r}")
    yield _texts(row, "conversation") | vote


def mt_bench(row: Row) -> Iterator[Row]:
    """The same; a question has one id, so that of a pair also names turn and models. GPT-4's `judge` is a list."""
    judge = decoded(row.get("judge"))
    if isinstance(judge, list):
        row = row | {"judge": "/".join(map(str, judge))}
    parts = (name_in(row, column) or "?" for column in ("question_id", "turn", "model_a", "model_b"))
    id = "/".join(parts)
    yield from ({"id": id, "annotator": row.get("judge"), **found} for found in conversations(row))


def turn_lists(row: Row) -> Iterator[Row]:
    """JSON lists of the turns in `prompt`, `response_a` and `response_b`; null is empty. A test file has no winner.

    Copies of the data have the texts of a single turn instead.
    """
    are_texts = _is_text(row["response_a"]) and _is_text(row["response_b"])
    asked = [row["prompt"]] if are_texts and _is_text(row["prompt"]) else _list(row, "prompt")
    a, b = ([row[name]] if are_texts else _list(row, name) for name in ("response_a", "response_b"))
    if are_texts and len(asked) > 1:
        raise bad_value("prompt", row["prompt"], "the text of one turn, as the responses are")
    if len(asked) == 1:
        texts = {"prompt": asked[0], "response_a": "\n\n".join(a), "response_b": "\n\n".join(b)}
    else:
        both = [tuple(_alternating(asked, answers)) for answers in (a, b)]
        texts = dict(zip(("prompt", "response_a", "response_b"), common_beginning(*both), strict=True))
    got = [row.get(f"winner_{side}") for side in ("model_a", "model_b", "tie")]
    if got == [None] * 3:
        yield texts | {"no_vote": "no winner"}
        return
    wins = [_is_true(value) for value in got]
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


def _texts(row: Row, stem: str) -> Row:
    """Prompt and responses of two conversations, in columns with this name before `_a` and `_b`."""
    turn = given_in(row, "turn")
    turns = None if turn is None else count_in(turn, "turn", "turns")
    prompt, a, b = common_beginning(*(judged_turns(row, f"{stem}_{side}", turns) for side in "ab"))
    if not prompt:
        raise bad_value(f"{stem}_b", row[f"{stem}_b"], f"the same first message as in {stem}_a")
    return {"prompt": prompt, "response_a": a, "response_b": b}


def _is_true(value: object) -> bool:
    return value is True or number_of(value) == 1 or str(value).lower() == "true"


def _is_text(value: object) -> bool:
    """Whether a value is a text that is no list of texts, not even one that is cut off."""
    return isinstance(value, str) and not _LIST.match(value)


def _list(row: Row, column: str) -> list[str]:
    value = decoded(row[column])
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


_LIST = re.compile(r"""\s*\[\s*(["']|null|])""")
_SIDES = {"model_a": "model_a", "model_b": "model_b"}
_NAMED = {"response_a": "conversation_a", "response_b": "conversation_b"}
_MESSAGES = {"response_a": "messages_a", "response_b": "messages_b"}
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
        "search_arena", ("model_a", "model_b", "winner", "messages_a", "messages_b"),
        "https://huggingface.co/datasets/lmarena-ai/search-arena-24k", search_arena, _SIDES, _MESSAGES,
    ),
    Layout(
        "comparia",
        ("model_a_name", "model_b_name", "chosen_model_name", "both_equal", "conversation_a", "conversation_b"),
        "https://huggingface.co/datasets/ministere-culture/comparia-votes", comparia,
        {"id": "id", "model_a": "model_a_name", "model_b": "model_b_name"}, _NAMED,
    ),
    Layout(
        "mt_bench", ("question_id", *BATTLE),
        "https://huggingface.co/datasets/lmsys/mt_bench_human_judgments", mt_bench,
        {"topic": "question_id", **_SIDES}, {**_NAMED, "annotator": "judge"},
    ),
    Layout(
        "battles", ("winner", "conversation_a", "conversation_b"),
        "https://huggingface.co/datasets/lmsys/chatbot_arena_conversations", conversations,
        {"id": "id", "annotator": "judge", **_SIDES}, _NAMED, unless=("question_id",),
    ),
    Layout(
        "ppe", ("question_id", "prompt", "response_1", "response_2", "winner"),
        "https://huggingface.co/datasets/lmarena-ai/PPE-Human-Preference-V1", winner,
        {"id": "question_id", "prompt": "prompt", "response_a": "response_1", "response_b": "response_2", **_SIDES},
    ),
)  # fmt: skip
