"""Pairs from JSONL, JSONL.gz, CSV and Parquet files, `save_to_disk` folders and Hub datasets; and pairs to JSONL.

Columns: `prompt, response_a, response_b` and either `label` or `votes_a, votes_b[, votes_tie]`; optional `id, topic,
model_a, model_b, true_probability` and, for a label without votes, `n_votes`. Other columns are ignored. An invalid
row is a `DataError` that names the file, the line, the column, the value and what would be right. No row is dropped or
repaired, unless requested: `allow_odd_responses` keeps responses that are blank or not text, and counts them.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import fields

from autorater.data.errors import DataError, DataWarning, UserError
from autorater.data.fields import Row, bad_value, count_in, given_in, name_in, probability_in, shortened, text_in
from autorater.data.pairs import Pair, vote_share
from autorater.data.tables import distinct, iter_rows, located, write_rows

COLUMNS = tuple(field.name for field in fields(Pair))


def load_pairs(
    source: str | os.PathLike[str], *, split: str = "train", allow_odd_responses: bool = False
) -> list[Pair]:
    """Reads pairs from a file, a folder or the Hub.

    The label is the given one, else the vote share (a tie vote counts one half); if a row has both they must agree
    within 1e-6. In optional columns null and the empty string mean absent. A pair without an id gets its row index as
    id. Blank lines of JSONL and CSV files are skipped, but count as lines.

    Args:
        source: A file (`.jsonl`, `.jsonl.gz`, `.csv`, `.parquet`), a folder written by `save_to_disk`, or a Hub name.
        split: Split of a Hub dataset or a saved `DatasetDict`; ignored for sources without splits.
        allow_odd_responses: Keep blank responses (an empty answer is an answer, and people voted on it), and read a
            JSON `true`, `false` or number in place of a response as its JSON text (a converter has changed the type).
            A null is still no response.

    Returns:
        At least one pair, in the order of the source, with distinct ids, and with labels and probabilities in [0, 1].

    Raises:
        DataError: If the source does not exist, cannot be read or is empty, or a row is not a pair.
        ImportError: If `datasets` is required and not installed.

    Warns:
        DataWarning: With `allow_odd_responses`, the kinds and numbers of odd responses.
    """
    odd: Counter[str] | None = Counter() if allow_odd_responses else None
    pairs = list(iter_pairs(source, split=split, odd=odd))
    if odd:
        found = ", ".join(f"{count} {kind}" for kind, count in odd.items())
        warnings.warn(f"{source}: odd responses among {len(pairs)} pairs: {found}", DataWarning, stacklevel=2)
    return pairs


def iter_pairs(
    source: str | os.PathLike[str], *, split: str = "train", odd: Counter[str] | None = None
) -> Iterator[Pair]:
    """The pairs of `load_pairs` one at a time, for files larger than memory.

    Only hashes of earlier ids are kept. Arguments and errors are those of `load_pairs`; an error is raised when its
    row is reached. With `odd`, odd responses are kept, and their kinds are counted in it.
    """
    seen: set[int] = set()
    with closing(iter_rows(source, split=split, select=_select_columns)) as rows:
        for index, (place, row) in enumerate(rows):
            with located(f"{source}: {place}"):
                pair = _pair(row, index, odd)
                if hash(pair.id) in seen and (earlier := _place_of(pair.id, index, source, split)):
                    raise bad_value("id", pair.id, f"distinct ids; {earlier} already has this one")
            seen.add(hash(pair.id))
            yield pair


def _place_of(id: str, before: int, source: str | os.PathLike[str], split: str) -> str | None:
    """The place of an id in the first `before` rows; None if two ids have the same hash by chance."""
    with closing(iter_rows(source, split=split, select=_select_columns)) as rows:
        for index, (place, row) in zip(range(before), rows, strict=False):
            if _id(row, index) == id:
                return place
    return None


def write_pairs(pairs: Iterable[Pair], path: str | os.PathLike[str]) -> None:
    """Writes pairs as `.jsonl` or `.jsonl.gz`, which `load_pairs` reads back; the same pairs give the same bytes.

    Raises:
        UserError: If the file name ends otherwise.
        ValueError: If a number is NaN or infinite.
    """
    name = os.fspath(path)
    if not name.lower().endswith((".jsonl", ".jsonl.gz")):
        raise UserError(f"cannot write pairs to {name!r}; expected a name that ends in .jsonl or .jsonl.gz")
    with open(name, "wb") as raw:
        packed = gzip.GzipFile("", "wb", fileobj=raw, mtime=0) if name.lower().endswith(".gz") else raw
        with io.TextIOWrapper(packed, encoding="utf-8", newline="\n") as file:
            write_rows(({column: getattr(pair, column) for column in COLUMNS} for pair in pairs), file)


def _pair(row: Row, index: int, odd: Counter[str] | None) -> Pair:
    _check_columns(row)
    label, n_votes, votes = _label(row)
    return Pair(
        id=_id(row, index),
        prompt=text_in(row["prompt"], "prompt"),
        response_a=_response(row["response_a"], "response_a", odd),
        response_b=_response(row["response_b"], "response_b", odd),
        label=label,
        n_votes=n_votes,
        topic=name_in(row, "topic"),
        model_a=name_in(row, "model_a"),
        model_b=name_in(row, "model_b"),
        true_probability=probability_in(row, "true_probability"),
        **votes,
    )


def _id(row: Row, index: int) -> str:
    return name_in(row, "id") or str(index)


def _select_columns(names: Sequence[str]) -> Sequence[str]:
    _check_columns(names)
    return distinct([name for name in names if name in COLUMNS])


def _check_columns(names: Collection[str]) -> None:
    voted = "label" not in names and ("votes_a" in names or "votes_b" in names)
    for column in ("prompt", "response_a", "response_b", *(("votes_a", "votes_b") if voted else ("label",))):
        if column not in names:
            also = " (or the columns votes_a and votes_b)" if column == "label" else ""
            raise DataError(f"column {column!r} is missing; expected it{also} among {shortened(list(names), 200)}")


def _response(value: object, column: str, odd: Counter[str] | None) -> str:
    """A response; odd ones are counted if they are allowed."""
    if odd is not None and isinstance(value, bool | int | float):
        value = json.dumps(value)
        odd[f"not text, read as {value}"] += 1
    elif odd is not None and isinstance(value, str) and not value.strip():
        odd["blank"] += 1
        return value
    return text_in(value, column)


def _label(row: Row) -> tuple[float, int | None, dict[str, int]]:
    """Label, number of votes, and the votes by column if they are given."""
    label = probability_in(row, "label")
    n_votes = None if (value := given_in(row, "n_votes")) is None else count_in(value, "n_votes")
    given = {column: given_in(row, column) for column in ("votes_a", "votes_b", "votes_tie")}
    if all(value is None for value in given.values()):
        if label is None:
            raise bad_value("label", None, "a number in [0, 1], or else whole numbers in votes_a and votes_b")
        if n_votes == 0:
            raise bad_value("n_votes", row["n_votes"], "at least one vote, or null if their number is unknown")
        return label, n_votes, {}
    if given["votes_tie"] is None:
        given["votes_tie"] = 0
    votes = {column: count_in(value, column) for column, value in given.items()}
    total = sum(votes.values())
    if total == 0:
        raise bad_value("votes_a, votes_b, votes_tie", tuple(votes.values()), "at least one vote")
    if n_votes not in (None, total):
        raise bad_value("n_votes", row["n_votes"], f"{total}, the sum of votes_a, votes_b and votes_tie")
    share = vote_share(**votes)
    if label is not None and abs(label - share) > 1e-6:
        raise bad_value("label", row["label"], f"{share:.6g}, the share for B of the votes {votes}, or no label")
    return share if label is None else label, total, votes
