"""Makes texts of unknown origin safe to show: no invisible characters, bounded length, no markup.

A response may hold control characters, direction overrides that make a line read backwards, halves of surrogate pairs
that no file can hold, or a megabyte of text. Here these become visible and short. Templates escape HTML themselves;
Markdown is escaped here.
"""

import re
import unicodedata

from autorater.data.messages import Text, plain_text

_HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # controls, format and direction marks, half surrogates, line separators
_KEPT = "\u200c\u200d"  # joiners: Persian and emoji need them, and they cannot deceive
_TAIL = 4  # a shortened text keeps a quarter of its limit from the end


def visible(text: Text, limit: int = 6_000) -> str:
    """A text of several lines, or a conversation, in which every character is visible.

    At least 8 characters, `limit`, are kept; of a longer text, most from its start and some from its end. ASCII
    control characters become pictures like `␛`, other invisible ones `⟨U+202E⟩`; line feeds and tabs stay. The result
    can always be encoded as UTF-8.
    """
    return _show(_shorten(plain_text(text), limit).replace("\r\n", "\n"), kept=_KEPT + "\n\t")


def visible_line(text: str, limit: int = 200) -> str:
    """As `visible`, for a place that holds a single line: line feeds and tabs become pictures, too."""
    return _show(_shorten(text, limit), kept=_KEPT)


def markdown_line(text: str, limit: int = 200) -> str:
    """As `visible_line`, escaped for Markdown: no markup, no HTML, no link, no bar that ends a table entry."""
    text = visible_line(text, limit)
    text = re.sub(r"[&<>|@]|:(?=//)|(?<=www)\.", lambda match: f"&#{ord(match[0])};", text, flags=re.IGNORECASE)
    return re.sub(r"[\\`*_~$\[\]]", r"\\\g<0>", text)


def markdown_block(text: str) -> str:
    """A Markdown code block; its fence is longer than any run of backticks in the text."""
    text = visible(text, 20_000)
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}text\n{text}\n{fence}"


def _shorten(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    tail = limit // _TAIL
    return f"{text[: limit - tail]} […{len(text) - limit:,} characters left out…] {text[-tail:]}"


def _show(text: str, kept: str) -> str:
    return "".join(
        char if char in kept or unicodedata.category(char) not in _HIDDEN else _picture(char) for char in text
    )


def _picture(char: str) -> str:
    code = ord(char)
    if code < 0x20:
        return chr(0x2400 + code)
    return "␡" if code == 0x7F else f"⟨U+{code:04X}⟩"
