"""Checks of single values in a row; each raises a `DataError` that names column, value and what would be right.

Null, the empty string and NaN (pandas' null) are all null. Whole numbers written as floats or decimals are whole
numbers. Lists and mappings in CSV fields are JSON, or Python literals as pandas and numpy write them.
"""

from __future__ import annotations

import ast
import io
import json
import math
import re
import tokenize
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from autorater.data.errors import DataError

Row = dict[str, Any]

_MESSAGES = re.compile(r"\[\s*{\s*['\"]")
_CONTENT = {"content", "text", "value", "parts", "tool_calls", "function_call"}
_SURROGATE = re.compile("[\ud800-\udfff]")
_NO_COMMA = re.compile(r"""['"}\]]\s+['"{\[]""")
_NUMBERS = re.compile(r"\[(?:[-+.\de\s]|nan)+\]", re.ASCII)  # as numpy prints them
_SHARE_WITH_COMMA = re.compile(r"[01]?,\d+", re.ASCII)
_DECIMAL_COMMA = re.compile(r"\d+,\d{1,2}", re.ASCII)  # with three digits it could divide thousands


def bad_value(column: str, value: object, expected: str) -> DataError:
    """The error about a value; the caller adds the file and the line."""
    return DataError(f"column {column!r}: got {shortened(value)}; expected {expected}")


def shortened(value: object, length: int = 80) -> str:
    """The value as in code, of at most this length."""
    shown = repr(value)
    return shown if len(shown) <= length else f"{shown[: length - 3]}..."


def given_in(row: Row, column: str) -> Any:
    """The value of an optional column; null, the empty string and NaN are None."""
    value = row.get(column)
    is_nan = isinstance(value, float | Decimal) and math.isnan(value)
    return None if is_nan or (isinstance(value, str) and not value) else value


def decoded(value: object) -> Any:
    """A list or mapping, also from its JSON or Python literal in a text; other values unchanged."""
    if not isinstance(value, str) or value[:1] not in ("[", "{"):
        return value.tolist() if hasattr(value, "tolist") else value  # pandas gives lists of Parquet files as arrays
    for parse in (json.loads, _literal):
        try:
            return parse(value)
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError, tokenize.TokenError):
            pass
    return value


def _literal(text: str) -> Any:
    """A Python literal. numpy prints lists without commas, which in Python would join the texts of a list."""
    if _NUMBERS.fullmatch(text):
        text = f"[{','.join(text[1:-1].split())}]"
    tree = ast.parse(_with_commas(text) if _NO_COMMA.search(text) else text, mode="eval")
    return ast.literal_eval(_Arrays().visit(tree) if "array(" in text or "nan" in text else tree)


class _Arrays(ast.NodeTransformer):
    """Reads what pandas writes of arrays inside of lists and mappings, `array([…], dtype=object)`, and `nan`."""

    def visit_Call(self, node: ast.Call) -> ast.expr:
        is_array = isinstance(node.func, ast.Name) and node.func.id == "array" and node.args
        return self.visit(node.args[0]) if is_array else node

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.Constant(math.nan) if node.id == "nan" else node


def _with_commas(text: str) -> str:
    parts: list[str] = []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.string.strip():
            ends, begins = parts and parts[-1][-1] in "'\"}]", token.string[0] in "'\"{["
            parts += [",", token.string] if ends and begins else [token.string]
    return " ".join(parts)


def with_messages(value: object) -> Any:
    """The chat messages that a text spells as JSON or as a Python literal; other values unchanged."""
    if not isinstance(value, str) or not _MESSAGES.match(value):
        return value
    messages = decoded(value)
    is_chat = isinstance(messages, list) and all(isinstance(part, dict) and _is_message(part) for part in messages)
    return messages if is_chat else value


def _is_message(part: Row) -> bool:
    """Whether a mapping is a chat message; others, such as people with their roles and edges of a graph, are data."""
    of_sharegpt = isinstance(part.get("from"), str) and isinstance(part.get("value"), str) and "to" not in part
    return of_sharegpt or ("role" in part and not _CONTENT.isdisjoint(part))


def mappings_in(row: Row, column: str) -> list[Mapping[str, Any]]:
    """A list of mappings; a mapping of lists, as the `datasets` package stores it, is turned around."""
    value = decoded(row.get(column))
    if isinstance(value, Mapping):
        value = {name: decoded(values) for name, values in value.items()}  # to_pandas makes them arrays
    if isinstance(value, Mapping) and value and all(isinstance(values, list) for values in value.values()):
        if len({len(values) for values in value.values()}) > 1:
            raise bad_value(column, row.get(column), "lists of one length in a mapping of lists")
        value = [dict(zip(value, values, strict=True)) for values in zip(*value.values(), strict=True)]
    if not isinstance(value, list) or not all(isinstance(part, Mapping) for part in value):
        raise bad_value(column, row.get(column), "a list of mappings")
    return value


def text_in(value: object, column: str) -> str:
    """The value, checked to be text that is not blank."""
    if not isinstance(value, str) or not value or value.isspace():
        raise bad_value(column, value, "text that is not blank")
    return check_unicode(value, column)


def check_unicode(value: str, column: str) -> str:
    """The text, checked to be encodable: JSON can escape half of a surrogate pair, which no tokenizer accepts."""
    try:
        value.encode()
    except UnicodeEncodeError:
        expected = "text without lone surrogates (--allow_odd_responses reads U+FFFD for those in pairs)"
        raise bad_value(column, value, expected) from None
    return value


def has_surrogates(value: Any) -> bool:
    """Whether a text, or one in lists and mappings, has a lone surrogate."""
    if isinstance(value, Mapping):
        value = list(value.values())
    return any(map(has_surrogates, value)) if isinstance(value, list) else bool(_SURROGATE.search(str(value)))


def without_surrogates(value: Any) -> Any:
    """The text, or all texts in lists and mappings, with U+FFFD for each lone surrogate."""
    if isinstance(value, list):
        return [without_surrogates(part) for part in value]
    if isinstance(value, Mapping):
        return {name: without_surrogates(part) for name, part in value.items()}
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if isinstance(value, str) else value


def category_in(row: Row, column: str) -> str | None:
    """As `name_in`, also of a truth value or a fraction."""
    value = given_in(row, column)
    is_other = isinstance(value, bool) or (isinstance(value, float) and math.isfinite(value) and value != int(value))
    return str(value) if is_other else name_in(row, column)


def name_in(row: Row, column: str) -> str | None:
    """A name or a whole number in an optional column, as text. 3.0, which pandas writes for 3, is "3"."""
    value = given_in(row, column)
    if value is None:
        return None
    if isinstance(value, float | Decimal) and math.isfinite(value) and value == int(value):
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise bad_value(column, value, "text or a whole number")
    return check_unicode(value, column)


class RowIds:
    """Ids of the rows of a source: the given one, else the row's number from 0.

    After a row with an id, which may be a number too, it is "row 3".
    """

    def __init__(self):
        self._given = False

    def of(self, given: str | None, index: int) -> str:
        """The id of the next row, number `index`."""
        self._given = self._given or given is not None
        return given or (f"row {index}" if self._given else str(index))


def number_of(value: object) -> float:
    """The number, or NaN if there is none. Text in plain ASCII notation is a number, since CSV has only text."""
    is_text = isinstance(value, str) and value.isascii() and "_" not in value
    if isinstance(value, bool) or not (is_text or isinstance(value, (int, float, Decimal))):
        return float("nan")
    try:
        return float(value)
    except (ValueError, OverflowError):
        return float("nan")


def probability_in(row: Row, column: str, for_words: str = "") -> float | None:
    """A number in [0, 1] in an optional column. "0,5" is read too: it can only be a decimal comma.

    `for_words` is what the error says about a word, such as where words are read.
    """
    value = given_in(row, column)
    if value is None:
        return None
    if isinstance(value, str) and _SHARE_WITH_COMMA.fullmatch(value):
        value = value.replace(",", ".")
    number = number_of(value)
    if not 0 <= number <= 1:
        is_word = for_words and isinstance(value, str) and math.isnan(number) and "%" not in value
        raise bad_value(column, value, "a number in [0, 1], or null" + (f"; {for_words}" if is_word else ""))
    return number


def weight_in(row: Row) -> float | None:
    """A finite number, at least 0, in the optional column `weight`."""
    value = given_in(row, "weight")
    if value is None:
        return None
    number = _amount(value)
    if not 0 <= number < math.inf:
        raise bad_value("weight", value, "a number, 0 or more, or null")
    return number


def _amount(value: object) -> float:
    """A number that may have a decimal comma."""
    has_comma = isinstance(value, str) and _DECIMAL_COMMA.fullmatch(value)
    return number_of(value.replace(",", ".") if has_comma else value)


def count_in(value: object, column: str, of: str = "votes") -> int:
    """A number of votes or other things, at least 0."""
    number = _amount(value)
    if not (number >= 0 and number.is_integer()):
        is_share = of == "votes" and ("%" in str(value) or 0 < number < 1)
        way = "; a share of votes for B belongs into the column label, as a number in [0, 1]" if is_share else ""
        raise bad_value(column, value, f"a whole number of {of}, 0 or more{way}")
    return int(number)
