"""Rows of text files: JSON Lines, JSON lists, and CSV as Excel, pandas and R write it.

    .json, .jsonl   one object a line, or one list of objects; either under either name
    .csv, .tsv      the separator (comma, semicolon, tab or bar) is that of the header or of a `sep=` line; lines end
                    with LF, CRLF or CR; blanks around column names are not part of them; unnamed columns are left out

All are UTF-8, with or without a byte-order mark, and may be packed (.gz). A CSV field that spells a list of chat
messages is that list. What a CSV field says about numbers and names is left to the caller (`of_text`).
"""

from __future__ import annotations

import csv
import gzip
import json
import re
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from autorater.data.errors import DataError, located
from autorater.data.fields import Row, bad_value, with_messages

Rows = Iterator[tuple[str, Row]]  # the place of a row, such as `line 3`, and the row
SelectColumns = Callable[[Sequence[str]], Sequence[str]]  # column names of a header -> columns to read, or a DataError

_CSV_FIELD = 2**31 - 1  # the default limit of the csv module, 131,072 characters, is less than a long response
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_BLOCK = 1 << 20
_NAMES = (
    *("id", "topic", "group", "annotator", "model_a", "model_b", "question_id", "pair_id", "uid", "prompt_id", "idx"),
    "turn",
)
_NUMBERS = ("label", "votes_a", "votes_b", "votes_tie", "n_votes", "true_probability", "weight", "p_ab", "p_ba")
_NULLS = ("nan", "na", "n/a", "<na>", "null", "none")  # in columns of numbers
_WHOLE = re.compile(r"\d+\.0", re.ASCII)
_BLANK = re.compile(r"[ \t\r\n]*")
_LIST = re.compile(r"\s*\[\s*({|$)")  # how a file begins that is one list of objects


def distinct(names: Sequence[str]) -> Sequence[str]:
    """The column names; a DataError if one occurs twice."""
    if len(set(names)) < len(names):
        column, times = Counter(names).most_common(1)[0]
        raise DataError(f"column {column!r} is there {times} times; expected it once")
    return names


def misspelled(names: Collection[str], ours: Collection[str]) -> dict[str, str]:
    """Our columns that differ from the file's only in case, blanks or hyphens: ours to theirs."""
    spelled = {name.strip().lower().replace(" ", "_").replace("-", "_"): name for name in names}
    return {name: theirs for name, theirs in spelled.items() if name in ours and name not in names}


def is_text(name: str) -> bool:
    """Whether the fields of a file are text, as in CSV."""
    return name.lower().removesuffix(".gz").endswith((".csv", ".tsv"))


def of_text(row: Row) -> Row:
    """A row of text with whole names such as "3.0" as "3", and without words for null in columns of numbers."""
    nulls = {name: None for name in _NUMBERS if isinstance(row.get(name), str) and row[name].lower() in _NULLS}
    row = row | nulls if nulls else row
    whole = {name: row[name][:-2] for name in _NAMES if isinstance(row.get(name), str) and _WHOLE.fullmatch(row[name])}
    return row | whole if whole else row


def json_rows(path: Path, _: SelectColumns) -> Rows:  # JSON has no header
    """The objects of a file of JSON Lines, or of a JSON list (which is held in memory as text)."""
    decode = json.JSONDecoder(object_pairs_hook=_object).decode
    lines, is_first = _lines(path), True
    for number, text in lines:
        if text.isspace():
            continue
        if is_first and text.strip() == "[]":
            return
        if is_first and _LIST.match(text):
            yield from _list_rows(chain([text], (line for _, line in lines)), number)
            return
        is_first = False
        with located(f"line {number}"):
            try:
                row = decode(text)
            except (ValueError, RecursionError) as error:
                raise DataError(
                    f"not usable JSON ({_found(error)}); expected one JSON object per line, or one list"
                ) from error
            yield f"line {number}", _checked(row)


def _list_rows(lines: Iterator[str], number: int) -> Rows:
    text = "".join(lines)
    scan = json.JSONDecoder(object_pairs_hook=_object).raw_decode
    start, end = 0, _BLANK.match(text, text.index("[") + 1).end()
    while text[end : end + 1] != "]":
        number += text.count("\n", start, end)
        start = end
        with located(f"line {number}"):
            try:
                row, end = scan(text, start)
            except (ValueError, RecursionError) as error:
                found = _found(error, start)
                raise DataError(f"not usable JSON ({found}); expected a list of JSON objects") from error
            row = _checked(row)
        yield f"line {number}", row
        end = _BLANK.match(text, end).end()
        if text[end : end + 1] not in (",", "]"):
            raise DataError(
                f"line {number}: not usable JSON (no comma or ] after an object); expected a complete list"
            )
        if text[end] == ",":
            end = _BLANK.match(text, end + 1).end()


def _object(items: list[tuple[str, Any]]) -> Row:
    distinct([name for name, _ in items])
    return dict(items)


def _found(error: Exception, start: int = 0) -> object:
    return f"{error.msg} at character {error.pos - start + 1}" if isinstance(error, json.JSONDecodeError) else error


def _checked(row: object) -> Row:
    if not isinstance(row, dict):
        raise bad_value("(all)", row, "a JSON object with the columns as keys")
    return row


def csv_rows(path: Path, select: SelectColumns) -> Rows:
    """The rows of a CSV file; fields are text, or lists of mappings."""
    limit = csv.field_size_limit(_CSV_FIELD)
    try:
        yield from _csv_rows(path, select)
    finally:
        csv.field_size_limit(limit)


def _csv_rows(path: Path, select: SelectColumns) -> Rows:
    lines = _lines(path)
    skipped, first, separator = 0, "", None
    for skipped, first in lines:  # noqa: B007
        line = first.rstrip("\r\n").strip('"')
        if line.lower().startswith("sep=") and separator is None:  # a line by which Excel names the separator
            separator = line[4:5] or ","
        elif not first.isspace():
            break
    else:
        return
    separator = separator or _separator(first)
    reader = csv.reader(chain([first], (text for _, text in lines)), strict=True, delimiter=separator)
    header: list[str] | None = None
    start, base = skipped, skipped - 1
    try:
        for values in reader:
            if not values:
                pass
            elif header is None:
                header = [name.strip() for name in values]
                with located(f"line {start}"):
                    used = set(select([name for name in header if name]))
                    columns = [(i, name) for i, name in enumerate(header) if name in used]
            elif len(values) != len(header):
                raise DataError(
                    f"line {start}: {len(values)} fields; expected {len(header)}, as in the header "
                    f"(separated by {_SEPARATORS.get(separator, separator)})"
                )
            else:
                yield f"line {start}", {name: with_messages(values[i]) for i, name in columns}
            start = base + reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"line {start}: not CSV ({error}); expected quotes around fields with "
            f"{_SEPARATORS.get(separator, separator)}"
        ) from error


def _separator(line: str) -> str:
    """The separator that gives the header the most columns; a comma if there is one column."""
    return max(_SEPARATORS, key=lambda separator: len(next(csv.reader([line], delimiter=separator))))


def _line_end(path: Path) -> bytes:
    """CR for files of old Macs, which have no LF; else LF."""
    with _open(path) as file:
        head = file.read1(_BLOCK)
    return b"\r" if b"\r" in head.rstrip(b"\r") and b"\n" not in head else b"\n"


def _open(path: Path):
    return gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a UTF-8 file with their numbers, from 1."""
    number = 0
    try:
        end = _line_end(path)
        with _open(path) as file:
            for number, raw in enumerate(file if end == b"\n" else _split(file, end), 1):
                if number == 1 and (raw.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in raw[:2]):
                    raise DataError("line 1: saved as UTF-16; expected a file saved as UTF-8 (in Excel: CSV UTF-8)")
                try:
                    text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    found = f"byte {error.object[error.start]:#04x} at position {error.start + 1}"
                    raise DataError(
                        f"line {number}: {found} is not UTF-8; expected a file saved as UTF-8 (in Excel: CSV UTF-8)"
                    ) from error
                yield number, text
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"line {number + 1}: broken gzip data ({error}); expected a complete .gz file") from error


def _split(file: Any, end: bytes) -> Iterator[bytes]:
    rest = b""
    while block := file.read(_BLOCK):
        *lines, rest = (rest + block).split(end)
        yield from (line + b"\n" for line in lines)
    if rest:
        yield rest
