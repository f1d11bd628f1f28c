"""A response with and without Markdown: the same words in the same order, as headings and lists or as prose.

    as_prose      without headings, bullets, numbers of lists, quotes, bold and italic type (with asterisks); the items
                  of a list are sentences of one paragraph. A number alone is no list; one of several is,
                  if another is the same or its neighbour
    as_markdown   the same words; the first sentence is a heading, every other one a bullet that begins in bold

Code in fences is not touched.
"""

import re
from collections import Counter

_FENCE = re.compile(r"(^[ \t]*```.*?^[ \t]*```[ \t]*$)", re.MULTILINE | re.DOTALL)
_LINE = re.compile(r"^[ \t]*(?:#{1,6}[ \t]+|>[ \t]?|[-*+][ \t]+)+", re.MULTILINE)
_NUMBER = re.compile(r"^[ \t]*(\d{1,3})[.)][ \t]+", re.MULTILINE)
_RULE = re.compile(r"^[ \t]*(?:[-*_][ \t]*){3,}$", re.MULTILINE)
_EMPHASIS = re.compile(r"(\*\*|(?<!\w)\*)(?=\S)(.+?)(?<=\S)\1(?!\w)", re.DOTALL)
_SENTENCE_END = re.compile(r"(?<=[.!?:])[ \t]+")
_FIRST_WORDS = re.compile(r"\S+(?:[ \t]+\S+)?")


def as_prose(text: str) -> str:
    """The text without Markdown.

    Example:
        >>> as_prose("## Basil\\n\\n- **Water** it.\\n- Give it sun.")
        'Basil\\n\\nWater it. Give it sun.'
    """
    return _join(_paragraphs(text))


def as_markdown(text: str) -> str:
    """The text with a heading and bullets.

    Example:
        >>> as_markdown("Basil is easy. Water it. Give it sun.")
        '## Basil is easy.\\n\\n- **Water it.**\\n- **Give it** sun.'
    """
    found, has_heading = [], False
    for paragraph in _paragraphs(text):
        sentences = [paragraph] if _is_code(paragraph) else _sentences(paragraph)
        if not has_heading and not _is_code(paragraph):
            found.append(f"## {sentences.pop(0)}")
            has_heading = True
        if sentences:
            found.append(paragraph if _is_code(paragraph) else "\n".join(map(_bullet, sentences)))
    return _join(found)


def _paragraphs(text: str) -> list[str]:
    """Paragraphs without Markdown, each one line, and blocks of code as they are."""
    found = []
    numbers = Counter(map(int, _NUMBER.findall(_LINE.sub("", _FENCE.sub("", text)))))

    def without_number(line: re.Match[str]) -> str:
        number = int(line[1])
        is_of_list = numbers[number] > 1 or numbers.keys() & {number - 1, number + 1}
        return "" if is_of_list else line[0]

    for part in _FENCE.split(text):
        if _is_code(part):
            found.append(part)
            continue
        for block in re.split(r"\n[ \t]*\n", _RULE.sub("", part)):
            plain = _LINE.sub("", _NUMBER.sub(without_number, _LINE.sub("", block)))
            for _ in range(2):  # bold inside italic
                plain = _EMPHASIS.sub(r"\2", plain)
            if plain.strip():
                found.append(" ".join(plain.split()))
    return found


def _sentences(paragraph: str) -> list[str]:
    """The sentences; a number at the beginning is part of the first."""
    first, *others = _SENTENCE_END.split(paragraph)
    return (
        [f"{first} {others[0]}", *others[1:]] if others and re.fullmatch(r"\d{1,3}[.)]", first) else [first, *others]
    )


def _is_code(part: str) -> bool:
    return part.lstrip().startswith("```") and "\n" in part


def _bullet(sentence: str) -> str:
    return "- " + _FIRST_WORDS.sub(lambda words: f"**{words[0]}**", sentence, count=1)


def _join(paragraphs: list[str]) -> str:
    return "\n\n".join(paragraphs)
