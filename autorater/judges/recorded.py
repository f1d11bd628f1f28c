"""Judgments recorded by another program: a file with one row per pair and the judgments of both orders.

Its columns are one of these pairs; null or empty means no verdict:

    p_ab, p_ba                         Pr[the response shown second is better] in the given and in the swapped order:
                                       Pr[B better] and Pr[A better], in [0, 1]
    verdict_ab, verdict_ba             the preferred response: A, B or tie, in whichever slot it is shown
    slot_ab, slot_ba                   the slot of the preferred response: first, second or tie
    winner_original, winner_swapped    the preferred response: 1, 2 or tie

Optional: `label`, people's Pr[B preferred] in [0, 1] (for winner_…: the preferred response, 1 or 2); `id`; `prompt`,
`response_a` and `response_b`, to show the pairs that flip. Any other column can be used for grouping.
"""

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from autorater.data.errors import DataError
from autorater.data.fields import Row, bad_value, given_in, probability_in
from autorater.data.tables import iter_rows, located

_VERDICTS = {
    ("verdict_ab", "verdict_ba"): ({"A": 0.0, "B": 1.0, "tie": 0.5}, {"B": 0.0, "A": 1.0, "tie": 0.5}),
    ("slot_ab", "slot_ba"): ({"first": 0.0, "second": 1.0, "tie": 0.5},) * 2,
    ("winner_original", "winner_swapped"): ({"1": 0.0, "2": 1.0, "tie": 0.5}, {"2": 0.0, "1": 1.0, "tie": 0.5}),
}
COLUMN_SETS = (("p_ab", "p_ba"), *_VERDICTS)


@dataclass(frozen=True)
class RecordedPair:
    """The judgments of a pair in both orders.

    Attributes:
        id: As given, else the row's number, counted from 0.
        answers: Pr[the response shown second is better] in order ab and in order ba; NaN without a verdict.
        label: People's Pr[B preferred]; NaN if it is not given.
        row: The whole row.
    """

    id: str
    answers: tuple[float, float]
    label: float
    row: Row


def iter_recorded(path: str | os.PathLike[str]) -> Iterator[RecordedPair]:
    """Recorded judgments, one pair at a time, from a `.jsonl`, `.jsonl.gz`, `.csv` or `.parquet` file.

    Raises:
        DataError: If the file cannot be read, has no rows, or a row is not as described above.
    """
    columns = None
    for index, (place, row) in enumerate(iter_rows(path)):
        with located(f"{os.fspath(path)}: {place}"):
            columns = columns or _columns_of(row)
            pair = _pair(row, columns, index)
        yield pair


def _columns_of(row: Row) -> tuple[str, str]:
    for columns in COLUMN_SETS:
        if set(columns) <= set(row):
            return columns
    expected = " or ".join(", ".join(columns) for columns in COLUMN_SETS)
    raise DataError(f"expected the columns {expected} among {list(row)}")


def _pair(row: Row, columns: tuple[str, str], index: int) -> RecordedPair:
    for column in columns:
        if column not in row:
            raise DataError(f"column {column!r} is missing; expected it in every row, null for no verdict")
    meanings = _VERDICTS.get(columns, (None, None))
    answers = tuple(_number(row, column, meaning) for column, meaning in zip(columns, meanings, strict=True))
    is_winner = columns == ("winner_original", "winner_swapped")
    label = _number(row, "label", {"1": 0.0, "2": 1.0} if is_winner else None)
    id = given_in(row, "id")
    return RecordedPair(str(index if id is None else id), answers, label, row)


def _number(row: Row, column: str, meaning: Mapping[str, float] | None) -> float:
    """The probability or the verdict in a column, NaN for null."""
    value = given_in(row, column)
    if value is None:
        return math.nan
    if meaning is None:
        return probability_in(row, column)
    if isinstance(value, bool) or str(value).strip() not in meaning:
        raise bad_value(column, value, f"one of {', '.join(meaning)}, or null for no verdict")
    return meaning[str(value).strip()]
