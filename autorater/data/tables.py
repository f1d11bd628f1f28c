"""Rows of a source: JSON, CSV and Parquet files, `save_to_disk` folders, Hub datasets, and tables in memory.

The meaning of the columns is left to the caller (`autorater.data.loading`, `autorater.data.formats`). Only
`save_to_disk` folders and Hub names require `datasets`; the rest uses the standard library and pyarrow.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from autorater.data.errors import DataError, UserError, located
from autorater.data.fields import Row, with_messages
from autorater.data.text_files import Rows, SelectColumns, csv_rows, distinct, head_of, json_rows, refuse_other_file

_JSON, _CSV = (".jsonl", ".ndjson", ".json"), (".csv", ".tsv")
_OF_FILES = (*_JSON, *_CSV, ".parquet", ".xlsx", ".zip", ".bz2", ".zst", ".gz", ".txt", ".arrow")  # of no Hub name
_HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?(:[\w.-]+)?", re.ASCII)
_TABLE_ROWS = 4096  # rows converted to Python objects at a time
_SHORT = {
    **dict.fromkeys(("float32", "Float32", "float", "float[pyarrow]"), "float32"),
    **dict.fromkeys(("float16", "halffloat", "halffloat[pyarrow]"), "float16"),
}  # numbers of 32 and 16 bits: names of their types in numpy, pandas and pyarrow to those in numpy

Source = Any  # str | os.PathLike | pandas.DataFrame | datasets.Dataset | Sequence[Mapping]


def source_name(source: Source) -> str:
    """The source as messages name it: its path, or what it is."""
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    return f"{type(source).__name__} of {len(source):,} rows" if hasattr(source, "__len__") else type(source).__name__


def iter_rows(source: Source, *, split: str = "train", select: SelectColumns = distinct) -> Rows:
    """The rows of a source, one at a time.

    Args:
        source: A file (`.jsonl`, `.ndjson`, `.json`, `.csv`, `.tsv`, each also with `.gz`, or `.parquet`), a folder
            written by `save_to_disk`, a Hub name or `name:configuration`, a `pandas.DataFrame`, a `datasets.Dataset`,
            or a list of mappings.
        split: Split of a Hub dataset or a saved `DatasetDict`.
        select: Called with the column names of a source that has a header. Parquet files and datasets give only the
            columns that it returns.

    Yields:
        The place of a row, such as `line 3`, and the row as a mapping; fields of a CSV file are text. Lists of chat
        messages that are text in CSV, Parquet and DataFrames are lists.

    Raises:
        DataError: If the source does not exist, cannot be read or has no rows; raised when that place is reached,
            with the source.
    """
    with located(source_name(source)):
        try:
            rows = _open(source, split, select)
            first = next(rows, None)
            if first is None:
                raise DataError("no rows; expected at least one")
            yield first
            yield from rows
        except OSError as error:  # of the file: what the caller does with a row is not seen here
            raise DataError(f"cannot be read ({error.strerror or error}); expected a readable file") from error


def write_rows(rows: Iterable[Row], file: TextIO) -> None:
    """Writes rows as JSONL, without the columns that are None."""
    for row in rows:
        kept = {column: value for column, value in row.items() if value is not None}
        file.write(json.dumps(kept, ensure_ascii=False, allow_nan=False) + "\n")


def _open(source: Source, split: str, select: SelectColumns) -> Rows:
    if not isinstance(source, str | os.PathLike):
        return _memory_rows(source, split, select)
    path, name = Path(source), os.fspath(source).lower()
    readers = dict.fromkeys(_JSON, json_rows) | dict.fromkeys(_CSV, csv_rows) | {".parquet": _parquet_rows}
    if path.is_dir():
        return _dataset_rows(_loaded(path, split), select)
    if not path.is_file():
        if path.exists():
            raise DataError("is no file but a pipe or device; expected a file: it is opened more than once")
        if not isinstance(source, str) or not _is_hub_name(source):
            raise DataError("no such file; expected a file, a folder, or a Hub name such as org/name")
        return _dataset_rows(_loaded(source, split), select)
    for suffix, read in readers.items():
        if name.removesuffix(".gz").endswith(suffix) and not name.endswith(".parquet.gz"):
            return read(path, select)
    refuse_other_file(head_of(path))
    raise DataError(f"unknown file type; expected a name that ends in {', '.join(readers)}, .jsonl.gz or .csv.gz")


def _is_hub_name(name: str) -> bool:
    return not name.lower().endswith(_OF_FILES) and _HUB_NAME.fullmatch(name) is not None


def check_data_files(settings: Mapping[str, object], config: str | os.PathLike) -> None:
    """Raises a `UserError` for a `…dataset_name` among the settings of a config that is the name of a missing file."""
    for option, name in settings.items():
        is_data = option.endswith("dataset_name") and isinstance(name, str)
        if is_data and not os.path.exists(name) and not _is_hub_name(name):
            described = Path(config).read_text(encoding="utf-8").startswith("#")
            hint = f"; see the comments at the top of {config}" if described else ""
            raise UserError(f"{option}: {name}: no such file{hint}")


def _memory_rows(source: Any, split: str, select: SelectColumns) -> Rows:
    """The rows of a DataFrame, a Dataset, a DatasetDict, or a list of mappings."""
    if hasattr(source, "with_format") and hasattr(source, "column_names"):
        yield from _dataset_rows(_of_split(source, split), select)
    elif hasattr(source, "iloc") and hasattr(source, "columns"):
        yield from _frame_rows(source, select)
    elif isinstance(source, Sequence) and all(isinstance(row, Mapping) for row in source):
        yield from _mappings(source)
    else:
        expected = "a path, a Hub name, a pandas.DataFrame, a datasets.Dataset or a list of mappings"
        raise DataError(f"cannot be read as rows; expected {expected}")


def _mappings(rows: Iterable[Mapping[str, Any]]) -> Rows:
    yield from ((f"row {index} (counted from 0)", _of_python(row)) for index, row in enumerate(rows))


def _frame_rows(frame: Any, select: SelectColumns) -> Rows:
    frame = frame.set_axis([str(name) for name in frame.columns], axis=1)
    frame = frame[list(select(list(frame.columns)))]
    for start in range(0, len(frame), _TABLE_ROWS):
        part = frame.iloc[start : start + _TABLE_ROWS].astype(object)
        rows = part.where(part.notna(), None).to_dict("records")  # pandas has three nulls: None, NaN and NA
        _lengthen(rows, frame.dtypes)
        yield from ((f"row {i} (counted from 0)", _nested(_of_python(row))) for i, row in enumerate(rows, start))


def _of_python(row: Mapping[str, Any]) -> Row:
    """The row with lists and numbers in place of those of numpy."""
    return {name: _of_numpy(value) if hasattr(value, "tolist") else value for name, value in row.items()}


def _of_numpy(value: Any) -> Any:
    is_short = str(getattr(value, "dtype", None)) in _SHORT and not value.shape
    return float(str(value)) if is_short else value.tolist()


def _lengthen(rows: list[Row], types: Mapping[str, Any]) -> None:
    """Replaces numbers of 32 and 16 bits by their decimals: 0.3 would become 0.30000001192092896, of another bin."""
    import numpy as np

    for name, kind in ((name, _SHORT[str(type)]) for name, type in types.items() if str(type) in _SHORT):
        numbers = np.array([row[name] for row in rows], kind).astype(str).astype(float)
        for row, number in zip(rows, numbers.tolist(), strict=True):
            row[name] = None if math.isnan(number) else number


def _nested(row: Row) -> Row:
    return {name: with_messages(value) for name, value in row.items()}


def _table_rows(tables: Iterable[Any], class_names: Mapping[str, Sequence[str]]) -> Rows:
    """The rows of tables of pyarrow; `class_names` has the names of the numbers in a column of classes."""
    start = 0
    for table in tables:
        try:
            rows = _named(table, class_names).to_pylist()
        except UnicodeDecodeError as error:
            place = f"rows {start} to {start + table.num_rows - 1}"
            raise DataError(f"{place}: text that is not UTF-8 ({error}); expected UTF-8") from error
        _lengthen(rows, dict(zip(table.schema.names, table.schema.types, strict=True)))
        for index, row in enumerate(rows, start):
            yield f"row {index} (counted from 0)", _nested(row)
        start += table.num_rows


def _named(table: Any, class_names: Mapping[str, Sequence[str]]) -> Any:
    """The table with the names of classes in place of their numbers; -1 is null."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for i, name in enumerate(table.schema.names):
        numbers = table.column(i)
        if name in class_names and pa.types.is_integer(numbers.type):
            names = pa.array(class_names[name]).take(pc.if_else(pc.less(numbers, 0), None, numbers))
            table = table.set_column(i, name, names)
    return table


def _class_names_in(metadata: Mapping[bytes, bytes] | None) -> dict[str, list[str]]:
    """The names of each `datasets.ClassLabel` that `datasets` notes in a Parquet file."""
    features = json.loads((metadata or {}).get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    return {
        name: kind["names"]
        for name, kind in features.items()
        if isinstance(kind, dict) and kind.get("_type") == "ClassLabel"
    }


def _parquet_rows(path: Path, select: SelectColumns) -> Rows:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not (head := head_of(path)).startswith(b"PAR1"):
        refuse_other_file(head)
    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            tables = file.iter_batches(_TABLE_ROWS, columns=list(select(schema.names)))
            yield from _table_rows(tables, _class_names_in(schema.metadata))
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"not a Parquet file ({error}); expected a complete Parquet file") from error


def _loaded(source: str | Path, split: str) -> Any:
    """A `datasets.Dataset` from a folder, or from the Hub, where a configuration may follow a colon."""
    try:
        import datasets
    except ImportError as error:
        raise ImportError(f"{source}: reading this requires `datasets`: pip install 'autorater-rl[train]'") from error
    saved = isinstance(source, Path)
    try:
        if saved:
            dataset = datasets.load_from_disk(source)
        else:
            name, _, configuration = source.partition(":")
            dataset = datasets.load_dataset(name, configuration or None, split=split)
    except (OSError, ValueError, IndexError) as error:  # IndexError: a saved dataset without rows
        hub = "a file, a folder, or a Hub dataset with this split, as org/name or org/name:configuration"
        expected = "a folder written by save_to_disk" if saved else hub
        reason = " ".join(str(error).partition("\nExample of usage")[0].split())
        raise DataError(f"dataset not loaded, split {split!r} ({reason}); expected {expected}") from error
    return _of_split(dataset, split)


def _of_split(dataset: Any, split: str) -> Any:
    if not isinstance(dataset, Mapping):
        return dataset
    if split not in dataset:
        raise DataError(f"no split {split!r}; expected one of {', '.join(dataset)}")
    return dataset[split]


def _dataset_rows(dataset: Any, select: SelectColumns) -> Rows:
    if dataset.column_names is None:  # a stream whose rows name the columns
        yield from _mappings(dataset.with_format(None))
        return
    used = list(select(dataset.column_names))
    # a stream that was filtered or shuffled has them here alone
    class_names = {name: kind.names for name, kind in dataset.features.items() if hasattr(kind, "names")}
    yield from _table_rows(dataset.select_columns(used).with_format("arrow").iter(_TABLE_ROWS), class_names)
