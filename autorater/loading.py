"""Files of pairs: JSONL, JSONL.gz, CSV, Parquet, `save_to_disk` folders and Hub data sets.

Columns: `prompt, response_a, response_b` and either `label` or `votes_a, votes_b[, votes_tie]`; optional `id, topic,
model_a, model_b, true_probability` and, beside a label without its votes, `n_votes`. Other columns are not read.
Whatever is wrong with a row is a `DataError` that names the file, the line, the column, the value and what would be
right. No row is dropped or repaired, unless it is asked for: `allow_odd_responses` keeps responses that are blank or
not text, and says how many.

Files of single responses, with or without scores: JSONL with the columns `prompt, model, response[, score]`.

Only `save_to_disk` folders and Hub names need `datasets`; the rest is the standard library and pyarrow.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import os
import re
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import fields
from pathlib import Path
from typing import Any

from autorater.pairs import Pair, vote_share
from autorater.responses import Response

TEXT_COLUMNS = ("prompt", "response_a", "response_b")
VOTE_COLUMNS = ("votes_a", "votes_b", "votes_tie")
COLUMNS = tuple(field.name for field in fields(Pair))

_SUFFIXES = (".jsonl", ".jsonl.gz", ".csv", ".parquet")
_LOCAL_SUFFIXES = (*_SUFFIXES, ".gz", ".json", ".tsv", ".txt", ".arrow")  # never the end of a Hub name
_HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", re.ASCII)
_TABLE_ROWS = 4096  # rows turned into Python objects at a time
_CSV_CELL = 2**31 - 1  # the csv module's default of 131,072 characters is less than a long response

Row = dict[str, Any]
Rows = Iterator[tuple[int, Row]]


class DataError(ValueError):
    """Data that cannot be read as pairs; the message says where, what was found, and what would be right."""


class DataWarning(Warning):
    """Data that was read although it is odd; the message says what and how many."""


def load_pairs(
    source: str | os.PathLike[str], *, split: str = "train", allow_odd_responses: bool = False
) -> list[Pair]:
    """Reads pairs from a file, a folder or the Hub.

    The label is the one given, else the vote share (a tie vote counts one half); where a row has both they must agree
    within 1e-6. In optional columns null and the empty string mean absent. A pair without an id has its row index for
    an id. Blank lines of JSONL and CSV files are skipped, but count as lines.

    Args:
        source: A file (`.jsonl`, `.jsonl.gz`, `.csv`, `.parquet`), a folder written by `save_to_disk`, or the name of
            a data set on the Hub.
        split: Which split of a Hub data set or a saved `DatasetDict`. Files and saved `Dataset`s have only one, so it
            is not looked at.
        allow_odd_responses: Keep a blank response (saying nothing is an answer too, and people voted on it), and read
            a JSON `true`, `false` or number in the place of a response as its JSON text (a converter took a model's
            text for one). A null is still no response.

    Returns:
        At least one pair, in the order of the source. Labels and probabilities are in [0, 1], ids are distinct, the
        prompt and the responses are not blank.

    Raises:
        DataError: If the source is not there or cannot be read, holds no row, or a row is not a pair.
        ImportError: If `datasets` is needed and not installed.

    Warns:
        DataWarning: With `allow_odd_responses`, if there are odd responses: how many of which kind.
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
    """The pairs of `load_pairs` one at a time, so that a file larger than the memory can be gone through.

    Of the pairs that have gone by, only a hash of the id is kept. Arguments and errors are those of `load_pairs`; an
    error is raised when its row is reached.
    """
    return _iter_pairs(source, split, None)


def _iter_pairs(source: str | os.PathLike[str], split: str, odd: Counter[str] | None) -> Iterator[Pair]:
    seen: set[int] = set()
    index = -1
    place, rows = _open(source, split)
    try:
        with closing(rows):
            for index, (position, row) in enumerate(rows):
                try:
                    pair = _pair(row, index, odd)
                    if hash(pair.id) in seen and (earlier := _place_of(pair.id, index, source, split)):
                        raise bad_value("id", pair.id, f"distinct ids; {earlier} already has this one")
                except DataError as error:
                    raise DataError(f"{place(position)}: {error}") from None
                seen.add(hash(pair.id))
                yield pair
        if index < 0:
            raise DataError("no rows; expected at least one pair")
    except DataError as error:
        raise DataError(f"{os.fspath(source)}: {error}") from error.__cause__


def iter_rows(path: str | os.PathLike[str]) -> Iterator[tuple[str, Row]]:
    """The rows of a table that does not hold pairs, one at a time, with any columns.

    Args:
        path: A file whose name ends in `.jsonl`, `.jsonl.gz`, `.csv` or `.parquet`.

    Yields:
        The place of a row, such as `line 3`, and the row as a mapping; cells of a CSV file are text.

    Raises:
        DataError: If the file is not there or cannot be read; raised when the place is reached.
    """
    place, rows = _open_file(Path(path), _check_distinct, None)
    try:
        with closing(rows):
            for position, row in rows:
                yield place(position), row
    except DataError as error:
        raise DataError(f"{os.fspath(path)}: {error}") from error.__cause__


def load_responses(source: str | os.PathLike[str]) -> list[Response]:
    """Reads responses of models from a `.jsonl` or `.jsonl.gz` file.

    Returns:
        At least one response, in the order of the file, none of them twice. A blank response is one; scores are finite
        or None.

    Raises:
        DataError: If the file is not there or cannot be read, holds no row, or a row is not a response.
    """
    path = Path(source)
    if not path.name.lower().endswith((".jsonl", ".jsonl.gz")):
        raise DataError(f"{path}: unknown kind of file; expected a name that ends in .jsonl or .jsonl.gz")
    if not path.exists():
        raise DataError(f"{path}: no such file; expected a file of responses")
    responses: dict[tuple[str, str, str], Response] = {}
    try:
        for position, row in _json_rows(path):
            try:
                response = _scored_response(row)
                if response.key in responses:
                    raise bad_value(
                        "response", response.text, f"a response by {response.model!r} that is not there yet"
                    )
            except DataError as error:
                raise DataError(f"{_line(position)}: {error}") from None
            responses[response.key] = response
        if not responses:
            raise DataError("no rows; expected at least one response")
    except DataError as error:
        raise DataError(f"{path}: {error}") from error.__cause__
    return list(responses.values())


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


# One row.


def bad_value(column: str, value: object, expected: str) -> DataError:
    """The error about a value, cut where it is long; who reads the file puts its name and line in front."""
    shown = repr(value)
    shown = shown if len(shown) <= 80 else f"{shown[:77]}..."
    return DataError(f"column {column!r}: got {shown}; expected {expected}")


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
        true_probability=_probability(row, "true_probability"),
        **votes,
    )


def _check_columns(names: Collection[str]) -> None:
    voted = "votes_a" in names or "votes_b" in names
    needed = TEXT_COLUMNS if "label" in names else (*TEXT_COLUMNS, *(("votes_a", "votes_b") if voted else ("label",)))
    for column in needed:
        if column not in names:
            also = " (or the columns votes_a and votes_b)" if column == "label" else ""
            found = repr(list(names))
            found = found if len(found) <= 200 else f"{found[:197]}..."
            raise DataError(f"column {column!r} is missing; expected it{also} among {found}")


def _given(row: Row, column: str) -> Any:
    value = row.get(column)
    return None if isinstance(value, str) and not value else value


def text_in(value: object, column: str) -> str:
    """The value, if it is text that is not blank.

    Raises:
        DataError: If it is not.
    """
    if not isinstance(value, str) or not value or value.isspace():
        raise bad_value(column, value, "text that is not blank")
    return _unicode(value, column)


def _response(value: object, column: str, odd: Counter[str] | None) -> str:
    """A response; where odd ones are allowed, they are counted in `odd`."""
    if odd is None or value is None:
        return text_in(value, column)
    if isinstance(value, bool | int | float):
        value = json.dumps(value)
        odd[f"not text, read as {value}"] += 1
    elif isinstance(value, str) and not value.strip():
        odd["blank"] += 1
        return value
    return text_in(value, column)


def _scored_response(row: Row) -> Response:
    for column in ("prompt", "model", "response"):
        if column not in row:
            raise DataError(f"column {column!r} is missing; expected it among {list(row)}")
    text = row["response"]
    if not isinstance(text, str):
        raise bad_value("response", text, "text, empty or not")
    score = None if (value := _given(row, "score")) is None else _number(value)
    if score is not None and not math.isfinite(score):
        raise bad_value("score", value, "a finite number, or null where it is not scored yet")
    return Response(
        text_in(row["prompt"], "prompt"), text_in(row["model"], "model"), _unicode(text, "response"), score
    )


def _unicode(value: str, column: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:  # JSON can escape half of a surrogate pair; no tokenizer takes it
        raise bad_value(column, value, "text without lone surrogates") from None
    return value


def name_in(row: Row, column: str) -> str | None:
    """A name or number in a column, as text; None where there is none.

    Raises:
        DataError: If it is anything else.
    """
    value = _given(row, column)
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise bad_value(column, value, "text or a whole number")
    return _unicode(value, column)


def _number(value: object) -> float:
    """The number, or NaN where there is none. Text counts where it is a plain ASCII number: CSV knows nothing else."""
    is_text = isinstance(value, str) and value.isascii() and "_" not in value
    if isinstance(value, bool) or not (is_text or isinstance(value, (int, float))):
        return float("nan")
    try:
        return float(value)
    except (ValueError, OverflowError):
        return float("nan")


def _probability(row: Row, column: str) -> float | None:
    value = _given(row, column)
    if value is None:
        return None
    number = _number(value)
    if not 0 <= number <= 1:
        raise bad_value(column, value, "a number in [0, 1]")
    return number


def _count(value: object, column: str) -> int:
    number = _number(value)
    if not (number >= 0 and number.is_integer()):
        raise bad_value(column, value, "a whole number of votes, 0 or more")
    return int(number)


def _label(row: Row) -> tuple[float, int | None, dict[str, int]]:
    label = _probability(row, "label")
    n_votes = None if (value := _given(row, "n_votes")) is None else _count(value, "n_votes")
    given = {column: _given(row, column) for column in VOTE_COLUMNS}
    if all(value is None for value in given.values()):
        if label is None:
            raise bad_value("label", None, "a number in [0, 1], or else whole numbers in votes_a and votes_b")
        if n_votes == 0:
            raise bad_value("n_votes", row["n_votes"], "at least one vote, or null where their number is not known")
        return label, n_votes, {}
    if given["votes_tie"] is None:
        given["votes_tie"] = 0
    votes = {column: _count(value, column) for column, value in given.items()}
    total = sum(votes.values())
    if total == 0:
        raise bad_value("votes_a, votes_b, votes_tie", tuple(votes.values()), "at least one vote")
    if n_votes not in (None, total):
        raise bad_value("n_votes", row["n_votes"], f"{total}, the sum of votes_a, votes_b and votes_tie")
    share = vote_share(**votes)
    if label is not None and abs(label - share) > 1e-6:
        counts = ", ".join(f"{column} = {count}" for column, count in votes.items())
        raise bad_value(
            "label", row["label"], f"{share:.6g}, the share for B of {counts}, or no label beside the votes"
        )
    return share if label is None else label, total, votes


# The sources.


def _line(position: int) -> str:
    return f"line {position}"


def _table_row(position: int) -> str:
    return f"row {position} (counted from 0)"


def _open(source: str | os.PathLike[str], split: str) -> tuple[Callable[[int], str], Rows]:
    path = Path(source)
    name = os.fspath(source)
    if path.is_dir():
        return _table_row, _saved_rows(path, split)
    if path.exists():
        return _open_file(path, _check_header, COLUMNS)
    if not isinstance(source, str) or name.lower().endswith(_LOCAL_SUFFIXES) or not _HUB_NAME.fullmatch(name):
        raise DataError(f"{name}: no such file; expected a file, a folder, or a Hub name such as org/name")
    return _table_row, _hub_rows(name, split)


def _open_file(
    path: Path, check: Callable[[Sequence[str], str], None], columns: Sequence[str] | None
) -> tuple[Callable[[int], str], Rows]:
    """Rows of a file, its header checked where it has one; of a Parquet file only the given columns, or all."""
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected a name that ends in {', '.join(_SUFFIXES)}")
    name = path.name.lower()
    if name.endswith((".jsonl", ".jsonl.gz")):
        return _line, _json_rows(path)
    if name.endswith(".csv"):
        return _line, _csv_rows(path, check)
    if name.endswith(".parquet"):
        return _table_row, _parquet_rows(path, check, columns)
    raise DataError(f"{path}: unknown kind of file; expected a name that ends in {', '.join(_SUFFIXES)}")


def _place_of(id: str, before: int, source: str | os.PathLike[str], split: str) -> str | None:
    """Where in the first `before` rows the id stands; None if two ids have the same hash by chance."""
    place, rows = _open(source, split)
    with closing(rows):
        for index, (position, row) in zip(range(before), rows, strict=False):
            if (name_in(row, "id") or str(index)) == id:
                return place(position)
    return None


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    number = 0
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                try:
                    text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    found = f"byte {error.object[error.start]:#04x} at position {error.start + 1}"
                    raise DataError(f"line {number}: {found} is not UTF-8; expected a file saved as UTF-8") from error
                yield number, text
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"line {number + 1}: broken gzip data ({error}); expected a complete .gz file") from error


def _object(items: list[tuple[str, Any]]) -> Row:
    row = dict(items)
    if len(row) < len(items):
        names = [name for name, _ in items]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} is there twice")
    return row


def _json_rows(path: Path) -> Rows:
    decode = json.JSONDecoder(object_pairs_hook=_object).decode
    for number, text in _lines(path):
        if text.isspace():
            continue
        try:
            row = decode(text)
        except json.JSONDecodeError as error:
            found = f"{error.msg} at character {error.pos + 1}"
            raise DataError(f"line {number}: not JSON ({found}); expected one JSON object a line") from error
        except (ValueError, RecursionError) as error:
            raise DataError(f"line {number}: not usable JSON ({error}); expected one JSON object a line") from error
        if not isinstance(row, dict):
            raise DataError(f"line {number}: {bad_value('(all)', row, 'a JSON object with the columns as keys')}")
        yield number, row


def _csv_rows(path: Path, check: Callable[[Sequence[str], str], None]) -> Rows:
    reader = csv.reader((text for _, text in _lines(path)), strict=True)
    header: list[str] | None = None
    limit = csv.field_size_limit(_CSV_CELL)
    start = 1
    try:
        for cells in reader:
            if not cells:
                pass
            elif header is None:
                header = cells
                check(header, _line(start))
            elif len(cells) != len(header):
                raise DataError(f"{_line(start)}: {len(cells)} cells; expected {len(header)}, as in the header")
            else:
                yield start, dict(zip(header, cells, strict=True))
            start = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{_line(start)}: not CSV ({error}); expected cells with commas or quotes quoted") from error
    finally:
        csv.field_size_limit(limit)


def _check_header(names: Sequence[str], place: str) -> None:
    try:
        _check_columns(names)
    except DataError as error:
        raise DataError(f"{place}: {error}") from None
    _check_distinct([name for name in names if name in COLUMNS], place)


def _check_distinct(names: Sequence[str], place: str) -> None:
    for column in names:
        if names.count(column) > 1:
            raise DataError(f"{place}: column {column!r} is there {names.count(column)} times; expected it once")


def _rows_of_tables(tables: Iterable[Any]) -> Rows:
    start = 0
    for table in tables:
        try:
            rows = table.to_pylist()
        except UnicodeDecodeError as error:
            place = f"rows {start} to {start + table.num_rows - 1}"
            raise DataError(f"{place}: text that is not UTF-8 ({error}); expected UTF-8") from error
        yield from enumerate(rows, start)
        start += table.num_rows


def _parquet_rows(path: Path, check: Callable[[Sequence[str], str], None], columns: Sequence[str] | None) -> Rows:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            check(names, "schema")
            used = names if columns is None else [column for column in columns if column in names]
            yield from _rows_of_tables(file.iter_batches(_TABLE_ROWS, columns=used))
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"not readable as Parquet ({error}); expected a complete Parquet file") from error


def _import_datasets(source: str) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise ImportError(f"{source}: reading this needs `datasets`: pip install 'autorater[train]'") from error
    return datasets


def _dataset_rows(dataset: Any) -> Rows:
    _check_header(dataset.column_names, "columns")
    used = [column for column in COLUMNS if column in dataset.column_names]
    yield from _rows_of_tables(dataset.select_columns(used).with_format("arrow").iter(_TABLE_ROWS))


def _saved_rows(path: Path, split: str) -> Rows:
    datasets = _import_datasets(str(path))
    try:
        saved = datasets.load_from_disk(path)
    except (OSError, ValueError, IndexError) as error:  # IndexError: a saved data set without rows
        raise DataError(f"not a readable data set ({error}); expected a folder written by save_to_disk") from error
    if isinstance(saved, datasets.DatasetDict):
        if split not in saved:
            raise DataError(f"no split {split!r}; expected one of {', '.join(saved)}")
        saved = saved[split]
    yield from _dataset_rows(saved)


def _hub_rows(name: str, split: str) -> Rows:
    datasets = _import_datasets(name)
    try:
        dataset = datasets.load_dataset(name, split=split)
    except (OSError, ValueError) as error:
        expected = "a file or folder, or the name of a Hub data set that has this split"
        raise DataError(f"split {split!r} not loaded from the Hub ({error}); expected {expected}") from error
    yield from _dataset_rows(dataset)
