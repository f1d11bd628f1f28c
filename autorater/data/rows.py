"""One row of a table as pairs: finds the layout, reads the row in our columns, draws the order of preference data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from typing import NamedTuple

from autorater.data.columns import COLUMNS, CRITERIA, NOT_TEXT, OUR_COLUMNS, TEXTS, check_columns, check_ties
from autorater.data.errors import DataError, UserError, did_you_mean
from autorater.data.fields import Row, RowIds, bad_value, decoded, given_in, name_in, number_of, shortened
from autorater.data.layouts import OWN, layout_named, layout_of, lifted
from autorater.data.layouts.arenas import is_turns, turn_lists
from autorater.data.layouts.layout import SYSTEM
from autorater.data.layouts.votes import VOTE_COLUMNS, VOTES, counts, votes_in, winner_of
from autorater.data.pairs import Pair
from autorater.data.row_values import encodable, pair_of
from autorater.data.text_files import distinct, misspelled, of_text, spelled

_RENAMED = (*OUR_COLUMNS, "chosen", "rejected")
_LABELS = {"label", "votes_a", "votes_b", *VOTE_COLUMNS}
_VERDICTS = {*_LABELS, "votes_tie", "n_votes"}


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
                row = {
                    name: encodable(value, self._odd, bool(self._layout)) if name in read else value
                    for name, value in row.items()
                }
            found = (
                [self._as_named(ours, row) for ours in self._layout.rows(row)] if self._layout else [self._own(row)]
            )
            several = len(found) > 1
            pairs = [self._read(ours, row, index, f"/{i}" if several else "") for i, ours in enumerate(found)]
            return [pair for pair in pairs if pair is not None]

    def _read(self, ours: Row, row: Row, index: int, part: str) -> ReadPair | None:
        """The pair of a row in our columns, number `index` in the source; None if it is left out.

        `part`, such as "/0", distinguishes the pairs of a row that has several.
        """
        read = (*self.unread, *self._names.values())
        self.unread += [name for name in ours.get("unread", ()) if name not in read]
        reason = ours.get("no_pair") or (self._labelled and ours.get("no_vote"))
        if reason:
            self.left_out[reason] += 1
            return None
        given = name_in(ours, "id")
        id = self.ids.of(given, index)
        if given is None or "id" in self._chosen:  # one id for all pairs of the row
            id += part
        if not self._layout:
            check_columns(ours, self._labelled, self._names)
        pair = pair_of(ours, id, labelled=self._labelled, from_text=self._from_text, odd=self._odd)
        if "first_is" in ours and _flipped(pair, self._seed):
            pair = pair.swapped()
        annotator = name_in(ours, "annotator")
        counted = not self._layout and any(given_in(row, name) is not None for name in ("votes_a", "votes_b"))
        return ReadPair(pair, annotator, not counted or (annotator is not None and pair.n_votes == 1))

    def _find(self, names: Collection[str]) -> None:
        """Finds the layout at the first header or row, and checks that its columns are there."""
        if self._found:
            return
        self._check_named(names)
        if not self._forced:
            self._choose_layout(names)
        if self._layout and self._layout.reads_vote and "vote" not in self._names:  # it reads no other name of ours
            self._names = {"vote" if ours in VOTE_COLUMNS else ours: theirs for ours, theirs in self._names.items()}
        renamed = list(self._renamed(dict.fromkeys(names)))
        self._check_layout(renamed)
        self.unread = self._unread_in(names, renamed)
        self._found = True

    def _check_named(self, names: Collection[str]) -> None:
        """Raises a DataError if a column that the caller named is not there."""
        for ours, theirs in self._names.items():
            is_question = ours in VOTE_COLUMNS and "annotations" in names  # of Label Studio, in those who answered it
            if theirs not in names and not is_question and not any(n.startswith(f"{theirs}.") for n in names):
                option = "--split_by or columns" if ours == "topic" else "columns"  # see `grouping`
                raise DataError(
                    f"{option}: no column {theirs!r} to read as {ours}; expected one of "
                    f"{shortened(list(names), 200)}{did_you_mean(theirs, names)}"
                )

    def _choose_layout(self, names: Collection[str]) -> None:
        """Sets the layout by the columns of the source, and names those that differ from ours in case."""
        renamed = list(self._renamed(dict.fromkeys(names)))
        found = misspelled(renamed, OUR_COLUMNS)
        ours = {*renamed, *found}
        is_own = ours >= TEXTS and (_LABELS & ours or not self._labelled)
        layout = layout_of(renamed)
        if layout and (not is_own or layout.name == "lmsys_55k"):
            self._layout = layout
            return
        if not is_own:  # the columns of a layout may differ in case too
            found = misspelled(renamed, {*map(spelled, renamed)})
            self._layout = layout_of({*renamed, *found})
        used = set(self._names.values())
        self._names |= {ours: theirs for ours, theirs in found.items() if theirs not in used}

    def _expected(self) -> list[str]:
        """Columns that a source of the layout has; pairs to judge have no winner."""
        columns = self._layout.columns if self._layout else ()
        return [name for name in columns if self._labelled or not name.startswith("winner")]

    def _check_layout(self, renamed: Collection[str]) -> None:
        """Raises a DataError if a column of the layout is missing, or if ours have ties under another name."""
        if self._layout:
            missing = next((name for name in self._expected() if name not in renamed), None)
            if missing and self.layout_name != "argilla":
                raise DataError(f"column {missing!r} is missing; expected it in the layout {self.layout_name}")
        else:
            check_columns(renamed, self._labelled, self._names)
            if not set(VOTE_COLUMNS) & self._chosen:
                check_ties(set(renamed) - set(self._names.values()))

    def _unread_in(self, names: Collection[str], renamed: Collection[str]) -> list[str]:
        """Columns that are not read but look like criteria, a part of the prompt, images or tools."""
        optional = self._layout.optional if self._layout else ()
        expected = (*TEXTS, "criteria", "reference", *self._expected(), *optional)
        read = {self._names.get(name, name) for name in expected}
        return [
            *(name for name in names if name.lower() in CRITERIA and "criteria" not in renamed),
            *(name for name in names if name.lower() in NOT_TEXT),
            *(name for name in names if spelled(name) in (*SYSTEM, "history") and name not in read),
        ]

    def _as_named(self, ours: Row, row: Row) -> Row:
        """What the layout read, and what the caller named unless the layout computes it: a prompt, a response."""
        kept = (set(COLUMNS) - TEXTS) | set(self._layout.names)
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
            and all(is_turns(decoded(row.get(name))) for name in TEXTS)
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
