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

from autorater.data.errors import DataError, DataWarning
from autorater.data.fields import Row, bad_value, count_in, given_in, name_in, probability_in, text_in
from autorater.data.pairs import Pair, vote_share
from autorater.data.tables import check_distinct, iter_rows, located

TEXT_COLUMNS = ("prompt", "response_a", "response_b")
VOTE_COLUMNS = ("votes_a", "votes_b", "votes_tie")
COLUMNS = tuple(field.name for field in fields(Pair))


def load_pairs(
    source: str | os.PathLike[str], *, split: str = "train", allow_odd_responses: bool = False
) -> list[Pair]:
    """Reads pairs from a file, a folder or the Hub.

    The label is the given one, else the vote share (a tie vote counts one half); if a row has both they must agree
    within 1e-6. In optional columns null and the empty string mean absent. A pair without an id gets its row index as
    id. Blank lines of JSONL and CSV files are skipped, but count as lines.

    Args:
        source: A file (`.jsonl`, `.jsonl.gz`, `.csv`, `.parquet`), a folder written by `save_to_disk`, or the name of
            a dataset on the Hub.
        split: Split of a Hub dataset or a saved `DatasetDict`; ignored for sources without splits.
        allow_odd_responses: Keep blank responses (an empty answer is an answer, and people voted on it), and read a
            JSON `true`, `false` or number in place of a response as its JSON text (a converter has changed the type).
            A null is still no response.

    Returns:
        At least one pair, in the order of the source. Labels and probabilities are in [0, 1], ids are distinct, the
        prompt and the responses are not blank.

    Raises:
        DataError: If the source does not exist, cannot be read or is empty, or a row is not a pair.
        ImportError: If `datasets` is required and not installed.

    Warns:
        DataWarning: With `allow_odd_responses`, the kinds and numbers of odd responses.
    """
    odd: Counter[str] | None = Counter() if allow_odd_responses else None
    pairs = list(_iter_pairs(source, split, odd))
    if odd:
        found = ", ".join(f"{count} {kind}" for kind, count in odd.items())
        warnings.warn(
            f"{os.fspath(source)}: odd responses among {len(pairs)} pairs: {found}", DataWarning, stacklevel=2
        )
    return pairs


def iter_pairs(source: str | os.PathLike[str], *, split: str = "train") -> Iterator[Pair]:
    """The pairs of `load_pairs` one at a time, for files larger than memory.

    Only hashes of earlier ids are kept. Arguments and errors are those of `load_pairs`; an error is raised when its
    row is reached.
    """
    return _iter_pairs(source, split, None)


def _iter_pairs(source: str | os.PathLike[str], split: str, odd: Counter[str] | None) -> Iterator[Pair]:
    seen: set[int] = set()
    index = -1
    with closing(_rows(source, split)) as rows:
        for index, (place, row) in enumerate(rows):
            with located(os.fspath(source)), located(place):
                pair = _pair(row, index, odd)
                if hash(pair.id) in seen and (earlier := _place_of(pair.id, index, source, split)):
                    raise bad_value("id", pair.id, f"distinct ids; {earlier} already has this one")
            seen.add(hash(pair.id))
            yield pair
    if index < 0:
        raise DataError(f"{os.fspath(source)}: no rows; expected at least one pair")


def _rows(source: str | os.PathLike[str], split: str) -> Iterator[tuple[str, Row]]:
    return iter_rows(source, split=split, check=_check_header, columns=COLUMNS)


def _place_of(id: str, before: int, source: str | os.PathLike[str], split: str) -> str | None:
    """The place of an id in the first `before` rows; None if two ids have the same hash by chance."""
    with closing(_rows(source, split)) as rows:
        for index, (place, row) in zip(range(before), rows, strict=False):
            if (name_in(row, "id") or str(index)) == id:
                return place
    return None


def write_pairs(pairs: Iterable[Pair], path: str | os.PathLike[str]) -> None:
    """Writes pairs as JSONL that `load_pairs` reads back as equal pairs; columns without a value are left out.

    Args:
        pairs: The pairs.
        path: A file name that ends in `.jsonl` or `.jsonl.gz`; the same pairs always give the same bytes.

    Raises:
        ValueError: If the file name ends otherwise, or a number is NaN or infinite.
    """
    name = os.fspath(path)
    if not name.lower().endswith((".jsonl", ".jsonl.gz")):
        raise ValueError(f"cannot write pairs to {name!r}; expected a name that ends in .jsonl or .jsonl.gz")
    with open(name, "wb") as raw:
        packed = gzip.GzipFile("", "wb", fileobj=raw, mtime=0) if name.lower().endswith(".gz") else raw
        with io.TextIOWrapper(packed, encoding="utf-8", newline="\n") as file:
            for pair in pairs:
                row = {column: value for column in COLUMNS if (value := getattr(pair, column)) is not None}
                file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")


def _pair(row: Row, index: int, odd: Counter[str] | None) -> Pair:
    _check_columns(row)
    label, n_votes, votes = _label(row)
    return Pair(
        id=name_in(row, "id") or str(index),
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


def _check_header(names: Sequence[str]) -> None:
    _check_columns(names)
    check_distinct([name for name in names if name in COLUMNS])


def _check_columns(names: Collection[str]) -> None:
    voted = "votes_a" in names or "votes_b" in names
    needed = TEXT_COLUMNS if "label" in names else (*TEXT_COLUMNS, *(("votes_a", "votes_b") if voted else ("label",)))
    for column in needed:
        if column not in names:
            also = " (or the columns votes_a and votes_b)" if column == "label" else ""
            found = repr(list(names))
            found = found if len(found) <= 200 else f"{found[:197]}..."
            raise DataError(f"column {column!r} is missing; expected it{also} among {found}")


def _response(value: object, column: str, odd: Counter[str] | None) -> str:
    """A response; odd ones are counted if they are allowed."""
    if odd is None or value is None:
        return text_in(value, column)
    if isinstance(value, bool | int | float):
        value = json.dumps(value)
        odd[f"not text, read as {value}"] += 1
    elif isinstance(value, str) and not value.strip():
        odd["blank"] += 1
        return value
    return text_in(value, column)


def _label(row: Row) -> tuple[float, int | None, dict[str, int]]:
    """Label, number of votes, and the votes by column if they are given."""
    label = probability_in(row, "label")
    n_votes = None if (value := given_in(row, "n_votes")) is None else count_in(value, "n_votes")
    given = {column: given_in(row, column) for column in VOTE_COLUMNS}
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
        counts = ", ".join(f"{column} = {count}" for column, count in votes.items())
        raise bad_value("label", row["label"], f"{share:.6g}, the share for B of {counts}, or no label with the votes")
    return share if label is None else label, total, votes
