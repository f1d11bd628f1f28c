"""Preference data: a chosen and a rejected response, one vote a row.

The prompt is a column, or what both conversations (or texts) share at their beginning. Which response becomes A is
drawn by `load_pairs`, so that the position tells nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from autorater.data.fields import Row, bad_value, decoded, given_in, name_in, number_of
from autorater.data.layouts.layout import Layout
from autorater.data.layouts.votes import counts
from autorater.data.messages import Text, common_beginning, text_or_messages, transcript

_CHOSEN = {"first_is": "chosen", **counts(1, 0, 0)}


def preference(row: Row) -> Iterator[Row]:
    """`chosen` and `rejected`, with `prompt` or without: texts, messages, or transcripts of HH-RLHF."""
    chosen, rejected = (_text(row, column) for column in ("chosen", "rejected"))
    if isinstance(chosen, str) != isinstance(rejected, str):
        raise bad_value("rejected", row["rejected"], "what chosen is: text or messages")
    prompt = None if given_in(row, "prompt") is None else _prompt(row)
    shared, *rest = common_beginning(chosen, rejected)
    if prompt is None:
        if not shared:
            raise bad_value("chosen", row["chosen"], "the same beginning as rejected (the prompt), or a column prompt")
        prompt, (chosen, rejected) = shared, rest
    elif not isinstance(chosen, str) and shared and chosen[0].role != "assistant":
        if isinstance(prompt, str) and shared[-1].content.strip() == prompt.strip():
            prompt = shared if len(shared) > 1 else prompt
        elif isinstance(prompt, str) or prompt != shared[: len(prompt)]:
            raise bad_value("prompt", row["prompt"], "what chosen and rejected begin with, or no column prompt")
        else:
            prompt = shared
        chosen, rejected = rest
    yield {"prompt": prompt, "response_a": chosen, "response_b": rejected, **_CHOSEN, **_models(row)}


def ultrafeedback(row: Row) -> Iterator[Row]:
    """Equal scores are a tie: which of two such responses is called chosen was drawn by chance."""
    for found in preference(row):
        scores = [number_of(given_in(row, column)) for column in ("score_chosen", "score_rejected")]
        yield found | (counts(0, 0, 1) if scores[0] == scores[1] else {})


def rewardbench_2(row: Row) -> Iterator[Row]:
    """Every right completion (1, or more in the subset Ties) with every wrong one."""
    lists = {column: decoded(row[column]) for column in ("chosen", "rejected")}
    for column, texts in lists.items():
        if not isinstance(texts, list) or not texts:
            raise bad_value(column, row[column], "a list of completions")
    id = name_in(row, "id")
    for (i, chosen), (j, rejected) in product(*(enumerate(texts) for texts in lists.values())):
        found = {"prompt": row["prompt"], "response_a": chosen, "response_b": rejected, **_CHOSEN}
        yield found | ({"id": f"{id}/{i}-{j}"} if id else {})


def _text(row: Row, column: str) -> Text:
    if row.get(column) in (None, ""):
        raise bad_value(column, row.get(column), "text or messages")
    text = text_or_messages(row[column], column)
    return (transcript(text) or text) if isinstance(text, str) else text


def _prompt(row: Row) -> Text:
    """The prompt; a transcript that ends where the answer begins is messages too."""
    prompt = text_or_messages(row["prompt"], "prompt")
    turns = transcript(prompt) if isinstance(prompt, str) else None
    return prompt if turns is None else turns[:-1] if turns[-1] == ("assistant", "") else turns


def _models(row: Row) -> Row:
    return {ours: row.get(theirs) for ours, theirs in (("model_a", "chosen_model"), ("model_b", "rejected_model"))}


_KEPT = {column: column for column in ("id", "topic", "criteria", "reference", "group", "annotator")}
_NAMED = {"response_a": "chosen", "response_b": "rejected"}
_HUB = "https://huggingface.co/datasets"
_TRL = "https://huggingface.co/docs/trl/dataset_formats#preference"

LAYOUTS = (
    Layout(
        "rewardbench_2", ("prompt", "chosen", "rejected", "num_correct"), f"{_HUB}/allenai/reward-bench-2",
        rewardbench_2, {"topic": "subset"}, _NAMED,
    ),
    Layout(
        "rewardbench", ("prompt", "chosen", "rejected", "subset"), f"{_HUB}/allenai/reward-bench", preference,
        {"id": "id", "topic": "subset"}, _NAMED,
    ),
    Layout(
        "ultrafeedback", ("prompt", "chosen", "rejected", "score_chosen", "score_rejected"),
        f"{_HUB}/HuggingFaceH4/ultrafeedback_binarized", ultrafeedback, _KEPT, _NAMED,
    ),
    Layout("preference", ("chosen", "rejected"), _TRL, preference, _KEPT, _NAMED),
    Layout("hh_rlhf", ("chosen", "rejected"), "https://github.com/anthropics/hh-rlhf", preference, _KEPT, _NAMED),
)  # fmt: skip
