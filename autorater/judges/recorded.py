"""Judgments that somebody else has recorded: a file with one row a pair and the two readings side by side.

Any one of these sets of columns; what is null or empty is no verdict:

    p_ab, p_ba                         Pr[the response shown second is better], read from the order as given and from
                                       the swapped one: Pr[B better] and Pr[A better], in [0, 1]
    verdict_ab, verdict_ba             the winner by identity: A, B or tie, whatever its slot
    slot_ab, slot_ba                   the winner by slot: first, second or tie
    winner_original, winner_swapped    the winner by identity: 1, 2 or tie

Beside the first three, `label` is people's Pr[B preferred] in [0, 1]; beside winner_… the better response, 1 or 2.
Optional: `id`, and `prompt`, `response_a`, `response_b` to show the pairs that flip. Any other column can be
grouped by.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain

from autorater.data.errors import DataError
from autorater.data.tables import iter_rows

_VERDICTS = {
    ("verdict_ab", "verdict_ba"): ({"A": 0.0, "B": 1.0, "tie": 0.5}, {"B": 0.0, "A": 1.0, "tie": 0.5}),
    ("slot_ab", "slot_ba"): ({"first": 0.0, "second": 1.0, "tie": 0.5},) * 2,
    ("winner_original", "winner_swapped"): ({"1": 0.0, "2": 1.0, "tie": 0.5}, {"2": 0.0, "1": 1.0, "tie": 0.5}),
}
COLUMN_SETS = (("p_ab", "p_ba"), *_VERDICTS)


@dataclass(frozen=True)
class RecordedPair:
    """Both readings of a pair.

    Attributes:
        id: As given, else the row's number, counted from 0.
        answers: Pr[second slot better] from order ab and from order ba; NaN where there is no verdict.
        label: People's Pr[B preferred]; NaN where it is not given.
        row: Everything in the row.
    """

    id: str
    answers: tuple[float, float]
    label: float
    row: Mapping[str, object]


def iter_recorded(path: str | os.PathLike[str]) -> Iterator[RecordedPair]:
    """Reads recorded judgments one pair at a time.

    Args:
        path: A file whose name ends in `.jsonl`, `.jsonl.gz`, `.csv` or `.parquet`.

    Raises:
        DataError: If the file cannot be read, holds no row, or a row is not as described above.
    """
    rows = iter_rows(path)
    place, first = next(rows, ("", None))
    if first is None:
        raise DataError(f"{os.fspath(path)}: no rows; expected at least one pair")
    columns = next((names for names in COLUMN_SETS if set(names) <= set(first)), None)
    if columns is None:
        wanted = " or ".join(", ".join(names) for names in COLUMN_SETS)
        raise DataError(f"{os.fspath(path)}: {place}: expected the columns {wanted} among {list(first)}")
    for index, (here, row) in enumerate(chain([(place, first)], rows)):
        try:
            yield _pair(row, columns, index)
        except DataError as error:
            raise DataError(f"{os.fspath(path)}: {here}: {error}") from None


def _pair(row: Mapping[str, object], columns: tuple[str, str], index: int) -> RecordedPair:
    for column in columns:
        if column not in row:
            raise DataError(f"column {column!r} is missing; expected it in every row, null where there is no verdict")
    if columns == COLUMN_SETS[0]:
        answers = tuple(_probability(row, column) for column in columns)
    else:
        answers = tuple(
            _verdict(row, column, meaning) for column, meaning in zip(columns, _VERDICTS[columns], strict=True)
        )
    if columns[0].startswith("winner"):
        label = _verdict(row, "label", {"1": 0.0, "2": 1.0})
    else:
        label = _probability(row, "label")
    id = row.get("id")
    return RecordedPair(str(index) if id in (None, "") else str(id), answers, label, row)


def _verdict(row: Mapping[str, object], column: str, meaning: Mapping[str, float]) -> float:
    value = row.get(column)
    if value is None or value == "":
        return math.nan
    if isinstance(value, bool) or (found := meaning.get(str(value).strip())) is None:
        expected = ", ".join(meaning)
        raise DataError(f"column {column!r}: got {value!r:.80}; expected one of {expected}, or null for no verdict")
    return found


def _probability(row: Mapping[str, object], column: str) -> float:
    value = row.get(column)
    if value is None or value == "":
        return math.nan
    try:
        number = float("nan") if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number <= 1:
        raise DataError(f"column {column!r}: got {value!r:.80}; expected a number in [0, 1], or null")
    return number
