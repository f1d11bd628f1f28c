"""Rows of a source: JSONL, JSONL.gz, CSV and Parquet files, `save_to_disk` folders and Hub datasets.

What the columns mean is the business of the caller (`autorater.data.loading`, `autorater.data.formats`). Only
`save_to_disk` folders and Hub names need `datasets`; the rest is the standard library and pyarrow.
"""

from __future__ import annotations

import csv
import gzip
import json
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from autorater.data.errors import DataError
from autorater.data.fields import Row, bad_value

_SUFFIXES = (".jsonl", ".jsonl.gz", ".csv", ".parquet")


_LOCAL_SUFFIXES = (*_SUFFIXES, ".gz", ".json", ".tsv", ".txt", ".arrow")  # never the end of a Hub name


_HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", re.ASCII)


_TABLE_ROWS = 4096  # rows turned into Python objects at a time


_CSV_CELL = 2**31 - 1  # the csv module's default of 131,072 characters is less than a long response


Rows = Iterator[tuple[int, Row]]
HeaderCheck = Callable[[Sequence[str], str], None]


def iter_rows(path: str | os.PathLike[str]) -> Iterator[tuple[str, Row]]:
    """The rows of a table that does not hold pairs, one at a time, with any columns.

    Args:
        path: A file whose name ends in `.jsonl`, `.jsonl.gz`, `.csv` or `.parquet`.

    Yields:
        The place of a row, such as `line 3`, and the row as a mapping; cells of a CSV file are text.

    Raises:
        DataError: If the file is not there or cannot be read; raised when the place is reached.
    """
    place, rows = _open_file(Path(path), check_distinct, None)
    try:
        with closing(rows):
            for position, row in rows:
                yield place(position), row
    except DataError as error:
        raise DataError(f"{os.fspath(path)}: {error}") from error.__cause__


def open_source(
    source: str | os.PathLike[str], split: str, check: HeaderCheck, columns: Sequence[str]
) -> tuple[Callable[[int], str], Rows]:
    """Opens a file, a folder written by `save_to_disk`, or a Hub dataset.

    Args:
        source: Where the rows are.
        split: Split of a Hub dataset or a saved `DatasetDict`.
        check: Called with the column names and the place of the header, where there is a header.
        columns: The columns that are read of Parquet files and datasets.

    Returns:
        A function that names the place of a position, and positions with rows.

    Raises:
        DataError: If the source is not there; if it cannot be read, when that place is reached.
    """
    path = Path(source)
    name = os.fspath(source)
    if path.is_dir():
        return _table_row, _saved_rows(path, split, check, columns)
    if path.exists():
        return _open_file(path, check, columns)
    if not isinstance(source, str) or name.lower().endswith(_LOCAL_SUFFIXES) or not _HUB_NAME.fullmatch(name):
        raise DataError(f"{name}: no such file; expected a file, a folder, or a Hub name such as org/name")
    return _table_row, _hub_rows(name, split, check, columns)


def line_place(position: int) -> str:
    return f"line {position}"


def _table_row(position: int) -> str:
    return f"row {position} (counted from 0)"


def _open_file(path: Path, check: HeaderCheck, columns: Sequence[str] | None) -> tuple[Callable[[int], str], Rows]:
    """Rows of a file, its header checked where it has one; of a Parquet file only the given columns, or all."""
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected a name that ends in {', '.join(_SUFFIXES)}")
    name = path.name.lower()
    if name.endswith((".jsonl", ".jsonl.gz")):
        return line_place, json_rows(path)
    if name.endswith(".csv"):
        return line_place, _csv_rows(path, check)
    if name.endswith(".parquet"):
        return _table_row, _parquet_rows(path, check, columns)
    raise DataError(f"{path}: unknown kind of file; expected a name that ends in {', '.join(_SUFFIXES)}")


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


def json_rows(path: Path) -> Rows:
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


def _csv_rows(path: Path, check: HeaderCheck) -> Rows:
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
                check(header, line_place(start))
            elif len(cells) != len(header):
                raise DataError(f"{line_place(start)}: {len(cells)} cells; expected {len(header)}, as in the header")
            else:
                yield start, dict(zip(header, cells, strict=True))
            start = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{line_place(start)}: not CSV ({error}); expected cells with commas or quotes quoted"
        ) from error
    finally:
        csv.field_size_limit(limit)


def check_distinct(names: Sequence[str], place: str) -> None:
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


def _parquet_rows(path: Path, check: HeaderCheck, columns: Sequence[str] | None) -> Rows:
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


def _dataset_rows(dataset: Any, check: HeaderCheck, columns: Sequence[str]) -> Rows:
    check(dataset.column_names, "columns")
    used = [column for column in columns if column in dataset.column_names]
    yield from _rows_of_tables(dataset.select_columns(used).with_format("arrow").iter(_TABLE_ROWS))


def _saved_rows(path: Path, split: str, check: HeaderCheck, columns: Sequence[str]) -> Rows:
    datasets = _import_datasets(str(path))
    try:
        saved = datasets.load_from_disk(path)
    except (OSError, ValueError, IndexError) as error:  # IndexError: a saved data set without rows
        raise DataError(f"not a readable data set ({error}); expected a folder written by save_to_disk") from error
    if isinstance(saved, datasets.DatasetDict):
        if split not in saved:
            raise DataError(f"no split {split!r}; expected one of {', '.join(saved)}")
        saved = saved[split]
    yield from _dataset_rows(saved, check, columns)


def _hub_rows(name: str, split: str, check: HeaderCheck, columns: Sequence[str]) -> Rows:
    datasets = _import_datasets(name)
    try:
        dataset = datasets.load_dataset(name, split=split)
    except (OSError, ValueError) as error:
        expected = "a file or folder, or the name of a Hub data set that has this split"
        raise DataError(f"split {split!r} not loaded from the Hub ({error}); expected {expected}") from error
    yield from _dataset_rows(dataset, check, columns)
