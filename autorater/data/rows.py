"""One row of a table as pairs: finds the layout, checks every value, draws the order of preference data."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from hashlib import blake2b
from shlex import quote
from typing import NamedTuple

from autorater.data.errors import DataError, UserError, did_you_mean, nearest
from autorater.data.fields import (
    Row,
    RowIds,
    bad_value,
    category_in,
    count_in,
    decoded,
    given_in,
    has_surrogates,
    name_in,
    number_of,
    probability_in,
    shortened,
    weight_in,
    without_surrogates,
)
from autorater.data.layouts import OWN, layout_named, layout_of, lifted
from autorater.data.layouts.arenas import is_turns, turn_lists
from autorater.data.layouts.exports import usual_responses
from autorater.data.layouts.layout import PROMPTS, SYSTEM
from autorater.data.layouts.votes import VOTE_COLUMNS, VOTES, counts, votes_in, winner_of
from autorater.data.messages import Text, plain_text, text_or_messages
from autorater.data.pairs import Pair, vote_share
from autorater.data.text_files import distinct, misspelled, of_text, spelled

COLUMNS = tuple(field.name for field in fields(Pair))
OUR_COLUMNS = (*COLUMNS, "annotator", *VOTE_COLUMNS)
NOT_TEXT = ("image", "images", "image_path", "image_url", "video", "videos", "audio", "tools")
"""Columns that a judge of texts does not see."""
_RENAMED = (*OUR_COLUMNS, "chosen", "rejected")
_TEXTS = {"prompt", "response_a", "response_b"}
CRITERIA = ("rubric", "rubrics", "criterion", "guidelines")
_LABELS = {"label", "votes_a", "votes_b", *VOTE_COLUMNS}
_COUNT = "(#|nb?|nums?|numbers?|of|total|votes?|counts?)"
_TIE = "(tied?|ties|draws?|both(_?(bad|good))?|neither|equal|neutral|same|no_?preference)"
_TIES = re.compile(rf"({_COUNT}_?)*{_TIE}(_?{_COUNT})*")
_VERDICTS = {*_LABELS, "votes_tie", "n_votes"}
_EXCEL_ERRORS = ("#NAME?", "#REF!", "#VALUE!", "#DIV/0!", "#N/A", "#NULL!", "#NUM!")
_RECORDED = "verdicts in both orders, which recipes/audit_position_bias.py --judge recorded:FILE reads, and no pairs"
_NO_PAIRS = {
    ("prompt", "completion", "label"): "one response a row with a label (KTO); expected two responses a row",
    ("output", "kto_tag"): "one response a row with a label (KTO); expected two responses a row",
    ("prompt", "response", "is_safe"): "ratings of one response a row (BeaverTails); expected two responses a row",
    ("info", "summary", "worker"): "ratings of one summary a row; expected the comparisons of summarize_from_feedback",
    ("response1", "response2", "feedback1", "feedback2"): "notes on two responses without a preference (HelpSteer3)",
    ("prompt", "response", "helpfulness"): "ratings of one response a row (HelpSteer); expected two responses a row",
    ("user_prompt", "model_response", "within_turn_id"): "one response a row (PRISM); expected its conversations",
    ("message_id", "parent_id", "rank"): "one message a row (OpenAssistant); expected its trees",
    ("g1_winner", "g2_winner"): _RECORDED,
    ("games",): _RECORDED,
}


class ReadPair(NamedTuple):
    """A pair of one row, its annotator if the row names one, and whether the row is a vote rather than counts."""

    pair: Pair
    annotator: str | None
    is_vote: bool


class RowReader:
    """Turns rows of one source into pairs.

    Args:
        columns, layout, labelled, seed: As in `load_pairs`.
        odd: Counts odd responses, if they are allowed.
        from_text: Whether the source has only text, as CSV; "3.0" is then the name 3, and "nan" no number.

    Attributes:
        layout_name: Name of the layout, known after the first row.
        left_out: Reasons of the rows without a vote since it was last cleared.
        unread: Columns that are not read but look like criteria, a part of the prompt, images or tools.
    """

    def __init__(
        self,
        columns: Mapping[str, str] | None = None,
        layout: str | None = None,
        labelled: bool = True,
        seed: int = 0,
        odd: Counter[str] | None = None,
        from_text: bool = False,
    ):
        if not isinstance(columns, Mapping | None):
            raise UserError(f'columns: got {columns!r}; expected a mapping such as {{"prompt": "instruction"}}')
        if unknown := sorted(set(columns or ()) - set(_RENAMED)):
            raise UserError(f"columns: unknown name {unknown[0]!r} of ours; expected one of {', '.join(_RENAMED)}")
        self.left_out: Counter[str] = Counter()
        self.unread: list[str] = []
        self._names = dict(columns or {})  # ours to theirs
        self._chosen = set(self._names)  # by the caller; names that differ in case are added to `_names`
        self._forced = layout is not None
        self._layout = None if layout is None else layout_named(layout)
        self._labelled, self._seed, self._odd = labelled, seed, odd
        self._from_text = from_text
        self._found, self.ids = False, RowIds()

    @property
    def layout_name(self) -> str:
        return self._layout.name if self._layout else OWN

    def select(self, names: Sequence[str]) -> Sequence[str]:
        """The columns of a header that are read; a DataError if they are of no layout, or if one is there twice."""
        if {"data", "fields"} & set(names):  # exports whose columns are nested: the first row shows them
            return distinct(names)
        self._find(names)
        if self._layout:
            return distinct(names)
        theirs = {self._names.get(ours, ours) for ours in OUR_COLUMNS}
        return distinct([name for name in names if name in theirs])

    def pairs(self, row: Row, index: int) -> list[ReadPair]:
        """The pairs of the row with this index (several in RewardBench 2)."""
        if self._from_text and not any(row.values()):  # Excel writes the rows below a table
            self.left_out["the row is blank"] += 1
            return []
        row = lifted(row)
        self._find(row)
        with self._in_their_words():
            row = self._renamed(row)
            if self._from_text:
                row = of_text(row)
            if self._odd is not None:
                read = row if self._layout else OUR_COLUMNS
                row = {name: self._encodable(value) if name in read else value for name, value in row.items()}
            found = (
                [self._as_named(ours, row) for ours in self._layout.rows(row)] if self._layout else [self._own(row)]
            )
            pairs = []
            for i, ours in enumerate(found):
                self.unread += [name for name in ours.get("unread", ()) if name not in self.unread]
                reason = ours.get("no_pair") or (self._labelled and ours.get("no_vote"))
                if reason:
                    self.left_out[reason] += 1
                    continue
                id = self.ids.of(name_in(ours, "id"), index)
                if len(found) > 1:
                    id += f"/{i}"
                    ours = ours | ({"id": None} if "id" in self._chosen else {})  # one id for all pairs of the row
                pair = self._pair(ours, id)
                if "first_is" in ours and _flipped(pair, self._seed):
                    pair = pair.swapped()
                annotator = name_in(ours, "annotator")
                counted = self._layout is None and any(
                    given_in(row, name) is not None for name in ("votes_a", "votes_b")
                )
                is_vote = not counted or (annotator is not None and pair.n_votes == 1)
                pairs.append(ReadPair(pair, annotator, is_vote))
            return pairs

    def _find(self, names: Collection[str]) -> None:
        """Finds the layout at the first header or row, and checks that its columns are there."""
        if self._found:
            return
        for ours, theirs in self._names.items():
            is_question = ours in VOTE_COLUMNS and "annotations" in names  # of Label Studio, in those who answered it
            if theirs not in names and not is_question and not any(n.startswith(f"{theirs}.") for n in names):
                option = "--split_by or columns" if ours == "topic" else "columns"  # see `grouping`
                raise DataError(
                    f"{option}: no column {theirs!r} to read as {ours}; expected one of "
                    f"{shortened(list(names), 200)}{did_you_mean(theirs, names)}"
                )
        renamed = list(self._renamed(dict.fromkeys(names)))
        if not self._forced:
            found = misspelled(renamed, OUR_COLUMNS)
            ours = {*renamed, *found}
            is_own = ours >= _TEXTS and (_LABELS & ours or not self._labelled)
            layout = layout_of(renamed)
            self._layout = layout if not is_own or (layout and layout.name == "lmsys_55k") else None
            if not self._layout:
                if not is_own:  # the columns of a layout may differ in case too
                    found = misspelled(renamed, {*map(spelled, renamed)})
                    self._layout = layout_of({*renamed, *found})
                used = set(self._names.values())
                self._names |= {ours: theirs for ours, theirs in found.items() if theirs not in used}
                renamed = list(self._renamed(dict.fromkeys(names)))
        if self._layout and self._layout.reads_vote and "vote" not in self._names:  # it reads no other name of ours
            self._names = {"vote" if ours in VOTE_COLUMNS else ours: theirs for ours, theirs in self._names.items()}
        expected = self._layout.columns if self._layout else ()
        if not self._labelled:
            expected = [name for name in expected if not name.startswith("winner")]
        if (missing := [name for name in expected if name not in renamed]) and self.layout_name != "argilla":
            raise DataError(f"column {missing[0]!r} is missing; expected it in the layout {self.layout_name}")
        if not self._layout:
            _check_columns(renamed, self._labelled, self._names)
            if not set(VOTE_COLUMNS) & self._chosen:
                check_ties(set(renamed) - set(self._names.values()))
        self.unread = [name for name in names if name.lower() in CRITERIA and "criteria" not in renamed]
        self.unread += [name for name in names if name.lower() in NOT_TEXT]
        optional = self._layout.optional if self._layout else ()
        read = {self._names.get(name, name) for name in (*_TEXTS, "criteria", "reference", *expected, *optional)}
        self.unread += [name for name in names if spelled(name) in (*SYSTEM, "history") and name not in read]
        self._found = True

    def _as_named(self, ours: Row, row: Row) -> Row:
        """What the layout read, and what the caller named unless the layout computes it: a prompt, a response."""
        kept = (set(COLUMNS) - _TEXTS) | set(self._layout.names)
        named = {name: row[name] for name in self._chosen if name in row and name in kept}
        vote = next((name for name in VOTE_COLUMNS if name in self._chosen and name in row), None)
        if vote and vote not in self._layout.columns and not self._layout.reads_vote:
            ours = {name: value for name, value in ours.items() if name not in (*_VERDICTS, "no_vote")}
            named |= votes_in(row, vote)
        return ours | named

    def _renamed(self, row: Row) -> Row:
        if not self._names:
            return row
        renamed = dict(row)
        for ours, theirs in self._names.items():
            if theirs in row:
                renamed[ours] = row[theirs]
            for name in [name for name in row if name.startswith(f"{theirs}.")]:  # Argilla's preference.responses
                renamed[ours + name.removeprefix(theirs)] = row[name]
        if "vote" in self._names and "annotations" in row:
            renamed.setdefault("vote.results", [])  # an annotation without an answer to the question
        return renamed

    def _own(self, row: Row) -> Row:
        """A row in our columns, with its single vote as counts; a vote that the caller named is the only verdict."""
        if set(VOTE_COLUMNS) & self._chosen:
            row = {name: value for name, value in row.items() if name in self._chosen or name not in _VERDICTS}
        column = next((name for name in VOTE_COLUMNS if name in row), None)
        given = {name for name in ("label", "votes_a", "votes_b", "votes_tie") if given_in(row, name) is not None}
        if column and not given:
            return row | votes_in(row, column)
        if not given and {"votes_a", "votes_b"} <= set(row):
            empty = " and ".join(self._names.get(name, name) for name in ("votes_a", "votes_b"))
            return row | {"no_vote": f"{empty} are null"}
        if column and given == {"label"}:
            _check_same_winner(row, column)
        if (
            not self._labelled
            and self._from_text
            and not self._forced
            and all(is_turns(decoded(row.get(name))) for name in _TEXTS)
        ):
            return row | next(iter(turn_lists(row)))  # Kaggle's test file has no verdicts
        if "annotator" in row and "votes_a" not in row and given_in(row, "n_votes") is None:
            if not given and "label" in row:
                return row | {"no_vote": "label is null"}
            winner = {0: "A", 0.5: "tie", 1: "B"}.get(number_of(row.get("label")))
            return row | counts(*VOTES[winner]) if winner else row
        return row

    @contextmanager
    def _in_their_words(self) -> Iterator[None]:
        """Errors name the columns of the source."""
        try:
            yield
        except DataError as error:
            of_layout = {**self._layout.named, **self._layout.names} if self._layout else {}
            names = {ours: self._names.get(theirs, theirs) for ours, theirs in of_layout.items()} | self._names
            ours = next((n for n in names if str(error).startswith((f"column '{n}'", f"column '{n}["))), None)
            if ours is None:
                raise
            raise DataError(str(error).replace(f"column '{ours}", f"column '{names[ours]}", 1)) from error.__cause__

    def _pair(self, row: Row, default_id: str) -> Pair:
        if not self._layout:
            _check_columns(row, self._labelled, self._names)
        label, n_votes, votes = _label(row, self._labelled)
        broken = [name for name in sorted(_TEXTS) if self._from_text and row[name] in _EXCEL_ERRORS]
        if broken:
            expected = "the text; Excel took it for a formula and wrote an error"
            raise bad_value(broken[0], row[broken[0]], expected)
        return Pair(
            id=name_in(row, "id") or default_id,
            prompt=text_or_messages(row["prompt"], "prompt"),
            response_a=self._response(row["response_a"], "response_a"),
            response_b=self._response(row["response_b"], "response_b"),
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

    def _encodable(self, value: object) -> object:
        """The value with U+FFFD for lone surrogates, also of a list of turns that a layout spells in a text."""
        spelled_turns = decoded(value) if self._layout and isinstance(value, str) else None
        found = spelled_turns if is_turns(spelled_turns) else value
        if not has_surrogates(found):
            return value
        self._odd["with a lone surrogate, read as U+FFFD"] += 1
        encodable = without_surrogates(found)
        return (
            json.dumps(encodable, ensure_ascii=False) if isinstance(value, str) and found is not value else encodable
        )

    def _response(self, value: object, column: str) -> Text:
        """A response; odd ones are counted if they are allowed."""
        if self._odd is None:
            response = _answer(value, column)
            if not plain_text(response).strip():
                raise bad_value(column, value, "text that is not blank, or allow_odd_responses to keep blank ones")
            return response
        if isinstance(value, bool | int | float):
            value = json.dumps(value)
            self._odd[f"not text, read as {value}"] += 1
        response = _answer(value, column)
        if not plain_text(response).strip():
            self._odd["blank"] += 1
        return response


def shown_in(row: Row) -> dict[str, Text | None]:
    """What a row has beside the texts that a judge's prompt may show: criteria, a reference, a group."""
    reference = given_in(row, "reference")
    return {
        "criteria": name_in(row, "criteria"),
        "reference": None if reference is None else text_or_messages(reference, "reference"),
        "group": category_in(row, "group"),
    }


def _answer(value: object, column: str) -> Text:
    """A response; one of several messages begins with the assistant."""
    response = text_or_messages(value, column, blank=True)
    if not isinstance(response, str) and len(response) > 1 and response[0].role in ("system", "developer", "user"):
        expected = "the messages from the assistant's first on; what comes before them belongs into the prompt"
        raise bad_value(f"{column}[0]", response[0].role, expected)
    return response


def _check_same_winner(row: Row, column: str) -> None:
    """A label of 0 or 1 beside a vote for the other response is an error: one of them is not about the pair."""
    label = number_of(row["label"])
    try:
        winner = winner_of(given_in(row, column), column)
    except DataError:  # not a verdict: some other column of this name
        return
    if (winner, label) in (("A", 1), ("B", 0)):
        expected = f"what label says, {label:g}, or columns={{{column!r}: {column!r}}} to read this column alone"
        raise bad_value(column, row[column], expected)


def _flipped(pair: Pair, seed: int) -> bool:
    """Whether the two responses of preference data change places: a hash of the texts, whichever was chosen."""
    chosen, rejected = str(pair.response_a), str(pair.response_b)
    texts = f"{seed}:{pair.prompt}:{min(chosen, rejected)}:{max(chosen, rejected)}"
    coin = blake2b(texts.encode("utf-8", "surrogatepass"), digest_size=1).digest()[0] & 1
    return bool(coin) == (chosen < rejected)


def _check_columns(names: Collection[str], labelled: bool, renamed: Mapping[str, str]) -> None:
    """Raises a DataError if a column is missing among those of the source and the renamed ones, ours to theirs."""
    voted = "label" not in names and ("votes_a" in names or "votes_b" in names)
    single = any(name in names for name in VOTE_COLUMNS)
    label = ("votes_a", "votes_b") if voted else () if single or not labelled else ("label",)
    required = ("prompt", "response_a", "response_b", *label)
    missing = next((column for column in required if column not in names), None)
    if missing is not None:
        raise DataError(_why_missing(missing, names, renamed))


def _why_missing(column: str, names: Collection[str], renamed: Mapping[str, str]) -> str:
    for columns, reason in _NO_PAIRS.items():
        if set(columns) <= set(names):
            return f"the columns {', '.join(columns)} are {reason}"
    if column == "label":
        also = (
            " (or the columns votes_a and votes_b, or vote; labelled=False, or --unlabelled of autorater convert, "
            "reads pairs to judge)"
        )
    else:
        others = [name for name in names if name not in (*OUR_COLUMNS, *renamed.values())]
        named = {ours: renamed.get(name, name) for ours, name in _suggested(column, names, others).items()}
        option = quote(",".join(f"{ours}={theirs}" for ours, theirs in named.items()))
        also = (
            f" (or columns={named} to name it, on the command line autorater convert FILE OUT.jsonl --columns "
            f"{option}, or a layout of docs/data.md)"
        )
    theirs = [name for name in names if renamed.get(name, name) == name]
    return f"column {column!r} is missing; expected it{also} among {shortened(theirs, 200)}"


def check_ties(names: Collection[str], renames: bool = True) -> None:
    """Raises a DataError if there are counts of ties under another name: without them the share of votes is wrong.

    Args:
        names: Columns of the file.
        renames: Whether it can be read with `columns`.
    """
    ties = sorted(name for name in names if name != "votes_tie" and _TIES.fullmatch(spelled(name)))
    if ties and "votes_a" in names:
        named = f"columns={{'votes_tie': {ties[0]!r}}} to read it" if renames else "the name votes_tie"
        way = "it to be added to votes_tie" if "votes_tie" in names else named
        raise DataError(
            f"column {ties[0]!r} is beside votes_a and is not read; expected {way}, or another name if it does not "
            "count ties"
        )


def _suggested(column: str, names: Collection[str], others: Sequence[str]) -> dict[str, str]:
    """Our missing columns to those that may be meant; both responses together, so that they cannot change places."""
    usual = next((name for name in PROMPTS if column == "prompt" and name in others), "THEIRS")
    found = {column: nearest(column, others) or usual}
    if column not in _TEXTS or {"response_a", "response_b"} & set(names):
        return found
    found = found if column == "prompt" else {}
    chosen = next((name for name in others if "chosen" in name and name.replace("chosen", "rejected") in others), None)
    if chosen:
        return found | {"chosen": chosen, "rejected": chosen.replace("chosen", "rejected")}
    a, b = usual_responses(others) or ("THEIRS", "THEIRS")
    return found | {"response_a": a, "response_b": b}


def _label(row: Row, labelled: bool) -> tuple[float | None, int | None, dict[str, int]]:
    """Label, number of votes, and the votes by column if they are given."""
    label = probability_in(row, "label", "columns={'vote': 'label'} reads words such as A, B and tie")
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
