"""Rows of text files: JSON Lines, JSON lists, and CSV as Excel, pandas and R write it.

    .json, .jsonl   one object a line, or one list of objects; either under either name (.ndjson is read too)
    .csv, .tsv      the separator (comma, semicolon, tab or bar) is that of the header or of a `sep=` line; lines end
                    with LF, CRLF or CR; blanks around column names are not part of them, nor, where the header has
                    blanks after its separators, those before a field; unnamed columns are left out

All are UTF-8, with or without a byte-order mark, and may be packed by gzip, whatever the name says. A CSV field that
spells a list of chat messages is that list. What a CSV field says about numbers and names is left to the caller
(`of_text`).
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
from autorater.data.fields import Row, bad_value, shortened, with_messages

Rows = Iterator[tuple[str, Row]]  # the place of a row, such as `line 3`, and the row
SelectColumns = Callable[[Sequence[str]], Sequence[str]]  # column names of a header -> columns to read, or a DataError

_CSV_FIELD = 2**31 - 1  # the default limit of the csv module, 131,072 characters, is less than a long response
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_BLOCK = 1 << 20
_NAMES = (
    *("id", "topic", "group", "annotator", "model_a", "model_b", "question_id", "pair_id", "uid", "prompt_id", "idx"),
    "turn",
)
_NUMBERS = (
    *("label", "votes_a", "votes_b", "votes_tie", "n_votes", "true_probability", "weight", "p_ab", "p_ba"),
    "probability",
)
_VERDICTS = {"label", "votes_a", "votes_b", "vote", "winner", "preference"}
_NULLS = ("nan", "na", "n/a", "<na>", "null", "none")  # in columns of numbers
_NO_NAMES = ("NA", "<NA>")  # null of R and pandas, in columns of names
_WHOLE = re.compile(r"-?\d+[.,]0", re.ASCII)
_NULL = r"\N"  # of MySQL, Postgres and Hive
_GZIP = b"\x1f\x8b"
_OTHER_FILES = {
    b"PK\x03\x04": "a zip file (also .xlsx); expected it unpacked, or the sheet saved as CSV UTF-8",
    b"BZh": "packed by bzip2; expected it unpacked, or packed by gzip",
    b"\x28\xb5\x2f\xfd": "packed by Zstandard; expected it unpacked, or packed by gzip",
    b"\xfd7zXZ\0": "packed by xz; expected it unpacked, or packed by gzip",
    b"\xd0\xcf\x11\xe0": "an old Excel file; expected the sheet saved as CSV UTF-8",
    b"PAR1": "a Parquet file; expected a name that ends in .parquet",
    b"ARROW1": "an Arrow file; expected a Parquet file or the folder of save_to_disk",
    b"version https://git-lfs": "a pointer of Git LFS in place of the file; expected the file itself (git lfs pull)",
}  # how files of other kinds begin
_BLANK = re.compile(r"[ \t\r\n]*")
_QUOTED = re.compile(rb'"[^"]*"')
_LINE_END = re.compile(rb"\r*\n|\r")
_TABLES = ("data", "rows", "records", "examples", "instances")
_LIST = re.compile(r"\s*\[\s*({|$)")  # how a file begins that is one list of objects


def distinct(names: Sequence[str]) -> Sequence[str]:
    """The column names; a DataError if one occurs twice."""
    if len(set(names)) < len(names):
        column, times = Counter(names).most_common(1)[0]
        raise DataError(f"column {column!r} is there {times} times; expected it once")
    return names


def spelled(name: str) -> str:
    """A column name as we spell ours: in lower case, with underscores for blanks and hyphens."""
    return name.strip().lower().replace(" ", "_").replace("-", "_")


def misspelled(names: Collection[str], ours: Collection[str]) -> dict[str, str]:
    """Our columns that differ from the file's only in case, blanks or hyphens: ours to theirs."""
    found = {spelled(name): name for name in names}
    return {name: theirs for name, theirs in found.items() if name in ours and name not in names}


def is_text(name: str) -> bool:
    """Whether the fields of a file are text, as in CSV."""
    return name.lower().removesuffix(".gz").endswith((".csv", ".tsv"))


def of_text(row: Row) -> Row:
    """A row of text with whole names such as "3.0" as "3", and without words for null in numbers and names."""
    nulls = {name: None for name in _NUMBERS if isinstance(row.get(name), str) and row[name].lower() in _NULLS}
    nulls |= {name: None for name in (*_NAMES, "criteria", "reference") if row.get(name) in _NO_NAMES}
    row = row | nulls if nulls else row
    whole = {name: row[name][:-2] for name in _NAMES if isinstance(row.get(name), str) and _WHOLE.fullmatch(row[name])}
    return row | whole if whole else row


def json_rows(path: Path, _: SelectColumns) -> Rows:  # JSON has no header
    """The objects of a file of JSON Lines, or of a JSON list (which is held in memory as text)."""
    decode = json.JSONDecoder(object_pairs_hook=_object).decode
    is_single, lines = _is_single(_lines(path))
    is_first = True
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
            row = _checked(row)
            if is_single and _is_table(row):
                raise DataError(
                    f"one JSON object with {shortened(list(row))} for the whole file; expected a list of objects, one "
                    "a row (pandas: to_json(FILE, orient='records'))"
                )
            yield f"line {number}", row


def _is_single(lines: Iterator[tuple[int, str]]) -> tuple[bool, Iterator[tuple[int, str]]]:
    """Whether there is one line that is not blank; and the lines."""
    read, found = [], 0
    for line in lines:
        read.append(line)
        found += not line[1].isspace()
        if found == 2:
            return False, chain(read, lines)
    return True, iter(read)


def _is_table(row: Row) -> bool:
    """Whether an object is a whole table: by columns or by index as pandas writes it, or under a key."""
    if any(isinstance(row.get(name), list) for name in _TABLES):
        return True
    inner = [set(value) if isinstance(value, dict) else None for value in row.values()]
    is_nested = len(row) > 1 and None not in inner and all(keys == inner[0] for keys in inner)
    are_lists = all(
        isinstance(value, list) and not any(isinstance(part, dict) for part in value) for value in row.values()
    )
    is_by_column = are_lists and isinstance(row.get("label", row.get("votes_a")), list)
    return is_nested or is_by_column


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
    start, first, separator = _first_line(lines)
    if not first:
        return
    has_blanks = f"{separator} " in first
    reader = csv.reader(
        chain([first], (text for _, text in lines)), strict=True, delimiter=separator, skipinitialspace=has_blanks
    )
    base = start - 1
    try:
        header = [name.strip() for name in next(reader)]
        with located(f"line {start}"):
            used = set(select([name for name in header if name]))
        columns = [(i, name) for i, name in enumerate(header) if name in used]
        start = base + reader.line_num + 1
        for values in reader:
            if values and len(values) != len(header):
                raise DataError(
                    f"line {start}: {len(values)} fields; expected {len(header)}, as in the header "
                    f"(separated by {_SEPARATORS.get(separator, separator)})"
                )
            if values:
                with located(f"line {start}"):
                    _refuse_swallowed(values, header, separator)
                texts = {name: values[i] for i, name in columns}
                yield (
                    f"line {start}",
                    {name: None if text == _NULL else with_messages(text) for name, text in texts.items()},
                )
            start = base + reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"line {start}: not CSV ({error}); expected quotes around fields with "
            f"{_SEPARATORS.get(separator, separator)}, and a quote inside them written twice, without a backslash"
        ) from error


def _first_line(lines: Iterator[tuple[int, str]]) -> tuple[int, str, str]:
    """The number and the text of the header, and the separator; an empty text without a header."""
    separator = None
    for number, text in lines:
        line = text.rstrip("\r\n").strip('"')
        if line.lower().startswith("sep=") and separator is None:  # a line by which Excel names the separator
            separator = line[4:5] or ","
        elif text.lstrip().startswith(("{", "[{")):
            raise DataError(
                f"line {number}: begins like JSON; expected a header of CSV, or a name that ends in .jsonl"
            )
        elif not text.isspace():
            return number, text, separator or _separator(text)
    return 0, "", ""


def _refuse_swallowed(values: list[str], header: list[str], separator: str) -> None:
    """Raises a DataError if a text that only begins with a quote has taken in the rows below it.

    Then the lines of the text have the fields of rows, and the fields of verdicts, or else the last ones, are not all
    blank. Commas are not looked at: prose has them too.
    """
    if separator == ",":
        return
    last = len(header) - 1
    verdicts = [i for i, name in enumerate(header) if spelled(name) in _VERDICTS]
    for index, (name, text) in enumerate(zip(header, values, strict=True)):
        lines = [line.split(separator) for line in text.split("\n")]
        n_separators = [len(fields) - 1 for fields in lines]
        are_rows = len(lines) > 1 and n_separators == [last - index, *[last] * (len(lines) - 2), index]
        ends = [i - last - 1 for i in verdicts or [last] if i > index]  # counted from the end of a row
        if are_rows and any(fields[end].strip() for fields in lines[:-1] for end in ends):
            expected = "a field of one row, but a quote took in whole rows; write a quote in a text twice, in quotes"
            raise bad_value(name, text, expected)


def _separator(line: str) -> str:
    """The separator that gives the header the most columns; a comma if there is one column."""
    return max(_SEPARATORS, key=lambda separator: len(next(csv.reader(line.splitlines(), delimiter=separator))))


def _line_end(path: Path) -> bytes:
    """CR for files of old Macs and of Excel's "CSV (Macintosh)", whose cells may have LF; else LF."""
    with _open(path) as file:
        head = file.read1(_BLOCK)
    first = _LINE_END.search(_QUOTED.sub(b"", head.rstrip(b"\r")))
    return b"\r" if first and first[0] == b"\r" else b"\n"


def _open(path: Path):
    head = head_of(path)
    refuse_other_file(head)
    return gzip.open(path) if path.suffix.lower() == ".gz" or head.startswith(_GZIP) else path.open("rb")


def head_of(path: Path) -> bytes:
    """The first bytes of a file."""
    with path.open("rb") as file:
        return file.read(32)


def refuse_other_file(head: bytes) -> None:
    """Raises a DataError if a file begins like one of another kind than its name says."""
    if what := next((what for begin, what in _OTHER_FILES.items() if head.startswith(begin)), None):
        raise DataError(f"this is {what}")


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
