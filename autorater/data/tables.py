"""Rows of a source: JSONL, JSONL.gz, CSV and Parquet files, `save_to_disk` folders and Hub datasets.

The meaning of the columns is left to the caller (`autorater.data.loading`, `autorater.data.formats`). Only
`save_to_disk` folders and Hub names require `datasets`; the rest uses the standard library and pyarrow.
"""

from __future__ import annotations

import csv
import gzip
import json
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

from autorater.data.errors import DataError
from autorater.data.fields import Row, bad_value

_SUFFIXES = (".jsonl", ".jsonl.gz", ".csv", ".parquet")
_LOCAL_SUFFIXES = (*_SUFFIXES, ".gz", ".json", ".tsv", ".txt", ".arrow")  # never the end of a Hub name
_HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", re.ASCII)
_TABLE_ROWS = 4096  # rows converted to Python objects at a time
_CSV_FIELD = 2**31 - 1  # the default limit of the csv module, 131,072 characters, is less than a long response

Rows = Iterator[tuple[str, Row]]
"""The place of a row, such as `line 3`, and the row."""
HeaderCheck = Callable[[Sequence[str]], None]


@contextmanager
def located(place: object) -> Iterator[None]:
    """Prefixes a `DataError` raised inside with a place: a file, a line."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{place}: {error}") from error.__cause__


def check_distinct(names: Sequence[str]) -> None:
    """Raises DataError if a column name occurs twice."""
    for column in names:
        if names.count(column) > 1:
            raise DataError(f"column {column!r} is there {names.count(column)} times; expected it once")


def iter_rows(
    source: str | os.PathLike[str],
    *,
    split: str = "train",
    check: HeaderCheck = check_distinct,
    columns: Sequence[str] | None = None,
) -> Rows:
    """The rows of a source, one at a time.

    Args:
        source: A file (`.jsonl`, `.jsonl.gz`, `.csv`, `.parquet`), a folder written by `save_to_disk`, or a Hub name.
        split: Split of a Hub dataset or a saved `DatasetDict`.
        check: Called with the column names of a source that has a header.
        columns: The columns to read of Parquet files and datasets; all by default.

    Yields:
        The place of a row, such as `line 3`, and the row as a mapping; fields of a CSV file are text.

    Raises:
        DataError: If the source does not exist or cannot be read; raised when that place is reached, with the source.
    """
    with located(os.fspath(source)), closing(_open(source, split, check, columns)) as rows:
        yield from rows


def _open(source: str | os.PathLike[str], split: str, check: HeaderCheck, columns: Sequence[str] | None) -> Rows:
    path, name = Path(source), os.fspath(source)
    if path.is_dir():
        return _saved_rows(path, split, check, columns)
    if path.is_file():
        return _file_rows(path, check, columns)
    if not isinstance(source, str) or name.lower().endswith(_LOCAL_SUFFIXES) or not _HUB_NAME.fullmatch(name):
        raise DataError("no such file; expected a file, a folder, or a Hub name such as org/name")
    return _hub_rows(name, split, check, columns)


def _file_rows(path: Path, check: HeaderCheck, columns: Sequence[str] | None) -> Rows:
    name = path.name.lower()
    if name.endswith((".jsonl", ".jsonl.gz")):
        return _json_rows(path)
    if name.endswith(".csv"):
        return _csv_rows(path, check)
    if name.endswith(".parquet"):
        return _parquet_rows(path, check, columns)
    raise DataError(f"unknown file type; expected a name that ends in {', '.join(_SUFFIXES)}")


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
            raise DataError(f"line {number}: not JSON ({found}); expected one JSON object per line") from error
        except (ValueError, RecursionError) as error:
            raise DataError(f"line {number}: not usable JSON ({error}); expected one JSON object per line") from error
        if not isinstance(row, dict):
            raise DataError(f"line {number}: {bad_value('(all)', row, 'a JSON object with the columns as keys')}")
        yield f"line {number}", row


def _csv_rows(path: Path, check: HeaderCheck) -> Rows:
    reader = csv.reader((text for _, text in _lines(path)), strict=True)
    header: list[str] | None = None
    limit = csv.field_size_limit(_CSV_FIELD)
    start = 1
    try:
        for values in reader:
            if not values:
                pass
            elif header is None:
                header = values
                with located(f"line {start}"):
                    _check_separator(header)
                    check(header)
            elif len(values) != len(header):
                raise DataError(f"line {start}: {len(values)} fields; expected {len(header)}, as in the header")
            else:
                yield f"line {start}", dict(zip(header, values, strict=True))
            start = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"line {start}: not CSV ({error}); expected quotes around fields with commas") from error
    finally:
        csv.field_size_limit(limit)


def _check_separator(header: Sequence[str]) -> None:
    first = header[0]
    if first.lower().startswith("sep="):
        raise DataError(f"got {first!r}, a line that only Excel reads; expected the header: remove this line")
    for separator, name in ((";", "semicolons"), ("\t", "tabs")):
        if len(header) == 1 and separator in first:
            raise DataError(f"the header is separated by {name}: {first[:80]!r}; expected commas")


def _rows_of_tables(tables: Iterable[Any]) -> Rows:
    start = 0
    for table in tables:
        try:
            rows = table.to_pylist()
        except UnicodeDecodeError as error:
            place = f"rows {start} to {start + table.num_rows - 1}"
            raise DataError(f"{place}: text that is not UTF-8 ({error}); expected UTF-8") from error
        for index, row in enumerate(rows, start):
            yield f"row {index} (counted from 0)", row
        start += table.num_rows


def _parquet_rows(path: Path, check: HeaderCheck, columns: Sequence[str] | None) -> Rows:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            with located("schema"):
                check(names)
            used = names if columns is None else [column for column in columns if column in names]
            yield from _rows_of_tables(file.iter_batches(_TABLE_ROWS, columns=used))
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"not readable as Parquet ({error}); expected a complete Parquet file") from error


def _import_datasets(source: str) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise ImportError(f"{source}: reading this requires `datasets`: pip install 'autorater-rl[train]'") from error
    return datasets


def _dataset_rows(dataset: Any, check: HeaderCheck, columns: Sequence[str] | None) -> Rows:
    with located("columns"):
        check(dataset.column_names)
    used = [column for column in columns or dataset.column_names if column in dataset.column_names]
    yield from _rows_of_tables(dataset.select_columns(used).with_format("arrow").iter(_TABLE_ROWS))


def _saved_rows(path: Path, split: str, check: HeaderCheck, columns: Sequence[str] | None) -> Rows:
    datasets = _import_datasets(str(path))
    try:
        saved = datasets.load_from_disk(path)
    except (OSError, ValueError, IndexError) as error:  # IndexError: a saved dataset without rows
        raise DataError(f"not a readable dataset ({error}); expected a folder written by save_to_disk") from error
    if isinstance(saved, datasets.DatasetDict):
        if split not in saved:
            raise DataError(f"no split {split!r}; expected one of {', '.join(saved)}")
        saved = saved[split]
    yield from _dataset_rows(saved, check, columns)


def _hub_rows(name: str, split: str, check: HeaderCheck, columns: Sequence[str] | None) -> Rows:
    datasets = _import_datasets(name)
    try:
        dataset = datasets.load_dataset(name, split=split)
    except (OSError, ValueError) as error:
        expected = "a file or folder, or the name of a Hub dataset that has this split"
        raise DataError(f"split {split!r} not loaded from the Hub ({error}); expected {expected}") from error
    yield from _dataset_rows(dataset, check, columns)


def first_row(rows: Rows, source: object, expected: str) -> tuple[str, Row, Rows]:
    """The first row with its place, and all rows; a source without rows is a DataError.

    Args:
        rows: Rows from their start.
        source: The source, for the message.
        expected: What the source should hold at least one of.
    """
    place, row = next(rows, ("", None))
    if row is None:
        raise DataError(f"{source}: no rows; expected at least one {expected}")
    return place, row, chain([(place, row)], rows)
