"""A row in our columns as a pair: its values are checked."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping

from autorater.data.columns import TEXTS
from autorater.data.fields import (
    Row,
    bad_value,
    category_in,
    count_in,
    decoded,
    given_in,
    has_surrogates,
    name_in,
    probability_in,
    weight_in,
    without_surrogates,
)
from autorater.data.layouts.arenas import is_turns
from autorater.data.messages import Text, plain_text, text_or_messages
from autorater.data.pairs import Pair, vote_share

_EXCEL_ERROR = re.compile("#[¿¡]?([^\\W_]+(/[^\\W_]+)?[!?]|[^\\W_]/[^\\W_]|NV)")
"""In whatever language: `#NAME?`, `#¿NOMBRE?`, `#DIV/0!`, `#N/A`, `#NV`, `#SPILL!`."""


def pair_of(row: Row, id: str, *, labelled: bool, from_text: bool, odd: Counter[str] | None) -> Pair:
    """The pair of a row in our columns, with this id; the other arguments are those of a `RowReader`."""
    label, n_votes, votes = _label(row, labelled)
    broken = [name for name in sorted(TEXTS) if from_text and _is_excel_error(row[name])]
    if broken:
        expected = "the text; Excel took it for a formula and wrote an error"
        raise bad_value(broken[0], row[broken[0]], expected)
    return Pair(
        id=id,
        prompt=text_or_messages(row["prompt"], "prompt"),
        response_a=_response(row["response_a"], "response_a", odd),
        response_b=_response(row["response_b"], "response_b", odd),
        label=label,
        n_votes=n_votes,
        topic=category_in(row, "topic"),
        model_a=name_in(row, "model_a"),
        model_b=name_in(row, "model_b"),
        true_probability=probability_in(row, "true_probability"),
        **shown_in(row),
        weight=weight_in(row),
        **votes,
    )


def _is_excel_error(text: object) -> bool:
    return isinstance(text, str) and text.isupper() and _EXCEL_ERROR.fullmatch(text) is not None


def shown_in(row: Row) -> dict[str, Text | None]:
    """What a row has beside the texts that a judge's prompt may show: criteria, a reference, a group."""
    reference = given_in(row, "reference")
    return {
        "criteria": name_in(row, "criteria"),
        "reference": None if reference is None else text_or_messages(reference, "reference"),
        "group": category_in(row, "group"),
    }


def _response(value: object, column: str, odd: Counter[str] | None) -> Text:
    """A response; odd ones are counted if they are allowed."""
    if odd is None:
        response = _answer(value, column)
        if not plain_text(response).strip():
            raise bad_value(column, value, "text that is not blank, or allow_odd_responses to keep blank ones")
        return response
    if isinstance(value, bool | int | float):
        value = json.dumps(value)
        odd[f"not text, read as {value}"] += 1
    response = _answer(value, column)
    if not plain_text(response).strip():
        odd["blank"] += 1
    return response


def _answer(value: object, column: str) -> Text:
    """A response; one of several messages begins with the assistant."""
    response = text_or_messages(value, column, blank=True)
    if not isinstance(response, str) and len(response) > 1 and response[0].role in ("system", "developer", "user"):
        expected = "the messages from the assistant's first on; what comes before them belongs into the prompt"
        raise bad_value(f"{column}[0]", response[0].role, expected)
    return response


def _label(row: Row, labelled: bool) -> tuple[float | None, int | None, dict[str, int]]:
    """Label, number of votes, and the votes by column if they are given."""
    is_boolean = str(row.get("label")).lower() in ("true", "false")
    number, words = "1 where B is preferred, else 0", "columns={'vote': 'label'} reads words such as A, B and tie"
    label = probability_in(row, "label", number if is_boolean else words)
    n_votes = None if (value := given_in(row, "n_votes")) is None else count_in(value, "n_votes")
    given = {column: given_in(row, column) for column in ("votes_a", "votes_b", "votes_tie")}
    if all(value is None for value in given.values()):
        if label is None and labelled:
            raise bad_value(
                "label", row.get("label"), "a number in [0, 1], or else whole numbers in votes_a and votes_b"
            )
        if n_votes == 0:
            raise bad_value("n_votes", row["n_votes"], "at least one vote, or null if their number is unknown")
        return label, n_votes, {}
    if given["votes_tie"] is None:
        given["votes_tie"] = 0
    votes = {column: count_in(row.get(column) if value is None else value, column) for column, value in given.items()}
    total = sum(votes.values())
    if total == 0:
        raise bad_value("votes_a", row["votes_a"], "at least one vote in it or in another count")
    if n_votes not in (None, total):
        raise bad_value("n_votes", row["n_votes"], f"{total}, the sum of votes_a, votes_b and votes_tie")
    share = share_beside(label, votes, row)
    return share if label is None else label, total, votes


def share_beside(label: float | None, votes: Mapping[str, int], row: Row) -> float:
    """The share for B of the votes in a row; a DataError if a label beside them, not None or NaN, is another."""
    share = vote_share(**votes)
    if label is not None and abs(label - share) > 1e-6:
        raise bad_value("label", row["label"], f"{share:.6g}, the share for B of the votes {votes}, or no label")
    return share


def encodable(value: object, odd: Counter[str], has_layout: bool) -> object:
    """The value with U+FFFD for lone surrogates, also of a list of turns that a layout spells in a text."""
    spelled_turns = decoded(value) if has_layout and isinstance(value, str) else None
    found = spelled_turns if is_turns(spelled_turns) else value
    if not has_surrogates(found):
        return value
    odd["with a lone surrogate, read as U+FFFD"] += 1
    replaced = without_surrogates(found)
    return json.dumps(replaced, ensure_ascii=False) if isinstance(value, str) and found is not value else replaced
