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
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from autorater.data.errors import DataError
from autorater.data.fields import Row, bad_value

_LOCAL_SUFFIXES = (".jsonl", ".gz", ".csv", ".parquet", ".json", ".tsv", ".txt", ".arrow")  # never in a Hub name
_HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", re.ASCII)
_TABLE_ROWS = 4096  # rows converted to Python objects at a time
_CSV_FIELD = 2**31 - 1  # the default limit of the csv module, 131,072 characters, is less than a long response

Rows = Iterator[tuple[str, Row]]  # the place of a row, such as `line 3`, and the row
SelectColumns = Callable[[Sequence[str]], Sequence[str]]  # column names of a header -> columns to read, or a DataError


@contextmanager
def located(place: object) -> Iterator[None]:
    """Prefixes a `DataError` raised inside with a place: a file, a line."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{place}: {error}") from error.__cause__


def distinct(names: Sequence[str]) -> Sequence[str]:
    """The column names; a DataError if one occurs twice."""
    if len(set(names)) < len(names):
        column, times = Counter(names).most_common(1)[0]
        raise DataError(f"column {column!r} is there {times} times; expected it once")
    return names


def iter_rows(source: str | os.PathLike[str], *, split: str = "train", select: SelectColumns = distinct) -> Rows:
    """The rows of a source, one at a time.

    Args:
        source: A file (`.jsonl`, `.jsonl.gz`, `.csv`, `.parquet`), a folder written by `save_to_disk`, or a Hub name.
        split: Split of a Hub dataset or a saved `DatasetDict`.
        select: Called with the column names of a source that has a header. Parquet files and datasets give only the
            columns that it returns.

    Yields:
        The place of a row, such as `line 3`, and the row as a mapping; fields of a CSV file are text.

    Raises:
        DataError: If the source does not exist, cannot be read or has no rows; raised when that place is reached,
            with the source.
    """
    with located(source):
        rows = _open(source, split, select)
        first = next(rows, None)
        if first is None:
            raise DataError("no rows; expected at least one")
        yield first
        yield from rows


def write_rows(rows: Iterable[Row], file: TextIO) -> None:
    """Writes rows as JSONL, without the columns that are None."""
    for row in rows:
        kept = {column: value for column, value in row.items() if value is not None}
        file.write(json.dumps(kept, ensure_ascii=False, allow_nan=False) + "\n")


def _open(source: str | os.PathLike[str], split: str, select: SelectColumns) -> Rows:
    path, name = Path(source), os.fspath(source).lower()
    if path.is_dir():
        return _dataset_rows(path, split, select)
    if not path.is_file():
        if not isinstance(source, str) or name.endswith(_LOCAL_SUFFIXES) or not _HUB_NAME.fullmatch(source):
            raise DataError("no such file; expected a file, a folder, or a Hub name such as org/name")
        return _dataset_rows(source, split, select)
    readers = {".jsonl": _json_rows, ".jsonl.gz": _json_rows, ".csv": _csv_rows, ".parquet": _parquet_rows}
    for suffix, read in readers.items():
        if name.endswith(suffix):
            return read(path, select)
    raise DataError(f"unknown file type; expected a name that ends in {', '.join(readers)}")


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
    distinct([name for name, _ in items])
    return dict(items)


def _json_rows(path: Path, _: SelectColumns) -> Rows:  # JSONL has no header
    decode = json.JSONDecoder(object_pairs_hook=_object).decode
    for number, text in _lines(path):
        if text.isspace():
            continue
        with located(f"line {number}"):
            try:
                row = decode(text)
            except (ValueError, RecursionError) as error:
                is_syntax = isinstance(error, json.JSONDecodeError)
                found = f"{error.msg} at character {error.pos + 1}" if is_syntax else error
                raise DataError(f"not usable JSON ({found}); expected one JSON object per line") from error
            if not isinstance(row, dict):
                raise bad_value("(all)", row, "a JSON object with the columns as keys")
        yield f"line {number}", row


def _csv_rows(path: Path, select: SelectColumns) -> Rows:
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
                    select(header)
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
    line = ",".join(header)
    if line.lower().startswith("sep="):
        raise DataError(f"got {line!r}, a line that only Excel reads; expected the header: remove this line")
    for separator, name in ((";", "semicolons"), ("\t", "tabs")):
        if line.count(separator) >= len(header):
            raise DataError(f"the header is separated by {name}: {line[:80]!r}; expected commas")


def _table_rows(tables: Iterable[Any]) -> Rows:
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


def _parquet_rows(path: Path, select: SelectColumns) -> Rows:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            yield from _table_rows(file.iter_batches(_TABLE_ROWS, columns=list(select(file.schema_arrow.names))))
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"not a Parquet file ({error}); expected a complete Parquet file") from error


def _dataset_rows(source: str | Path, split: str, select: SelectColumns) -> Rows:
    try:
        import datasets
    except ImportError as error:
        raise ImportError(f"{source}: reading this requires `datasets`: pip install 'autorater-rl[train]'") from error
    saved = isinstance(source, Path)
    try:
        dataset = datasets.load_from_disk(source) if saved else datasets.load_dataset(source, split=split)
    except (OSError, ValueError, IndexError) as error:  # IndexError: a saved dataset without rows
        expected = (
            "a folder written by save_to_disk" if saved else "a file, a folder, or a Hub dataset with this split"
        )
        raise DataError(f"dataset not loaded, split {split!r} ({error}); expected {expected}") from error
    if isinstance(dataset, datasets.DatasetDict):
        if split not in dataset:
            raise DataError(f"no split {split!r}; expected one of {', '.join(dataset)}")
        dataset = dataset[split]
    used = list(select(dataset.column_names))
    yield from _table_rows(dataset.select_columns(used).with_format("arrow").iter(_TABLE_ROWS))
