"""Markers that a text from the data must not imitate: it loses their bracket, `[` or `<`, which becomes `(`."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence

from autorater.data.messages import ROLES, Text

_MARKERS = re.compile(
    r"[<\[](?=\s*/?\s*(?:think|prob_rb_better|class_probabilities)\s*>"
    r"|\s*(?:question|answer|response\s+[ab12]|the\s+(?:start|end)\s+of\s+response\s+[ab12])\s*\])",
    re.IGNORECASE,
)
_ROLES = re.compile(rf"\[(?=\s*(?:{'|'.join(ROLES)})\s*\])", re.IGNORECASE)
_IN_LAYOUT = re.compile(r"\[(/?[^\W\d][^\[\]\n]{0,60})\]|</?([^\W\d][^<>\n]{0,60})>")


_CONTROL = re.compile(
    r"<(?=(\|[^|<>\n]{1,40}\|>|｜[^｜<>\n]{1,40}｜>|\|\w{1,40}>|\w{1,40}\|>"
    r"|/?(?:\w{1,20}:)?(?:s|bos|eos|pad|unk|sep|sop|eop|start_of_turn|end_of_turn)>|(?:BOS|EOS|PAD)_TOKEN>"
    r"|(?:unused|reserved_|extra_id_|SPECIAL_)\d+>|</?SYS>>))"
    r"|\[(?=(/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|THINK|gMASK)\]|\|\w{1,40}\|\]|e~\[))"
    r"|\](?=(~!?b[\[\]]))"
)


def without_control_tokens(text: str) -> str:
    """Replaces the bracket of common control tokens, which a server would parse in the text of a message."""
    return _CONTROL.sub("(", text)


def control_texts(texts: Iterable[str], tokens: Collection[str]) -> re.Pattern[str]:
    """A pattern of the brackets of common control tokens that stand in texts and are none of a tokenizer's `tokens`.

    Of Llama 2 and Zephyr `[INST]` and `<|user|>` are ordinary characters. A model reads them in any text as it reads
    those of its chat template.
    """
    found = (match[0] + match[match.lastindex] for text in texts for match in _CONTROL.finditer(text))
    spelled = sorted(set(found).difference(tokens))
    return re.compile("|".join(f"{re.escape(t[0])}(?={re.escape(t[1:])})" for t in spelled) or "(?!)")


def markers_in(texts: Iterable[str]) -> re.Pattern[str] | None:
    """A pattern of the brackets of a layout's own markers, `[Criteria]` or `<response_a>`; None if it has none."""
    square, angle = set(), set()
    for marker in (found for text in texts for found in _IN_LAYOUT.finditer(text)):
        if not _MARKERS.match(marker[0]):  # those are neutralized in any case
            name = r"\s+".join(map(re.escape, (marker[1] or marker[2]).split()))
            (square if marker[1] else angle).add(name)
    patterns = [rf"\[(?=\s*(?:{'|'.join(sorted(square))})\s*\])"] if square else []
    patterns += [rf"<(?=\s*/?\s*(?:{'|'.join(sorted(angle))})\s*>)"] if angle else []
    return re.compile("|".join(patterns), re.IGNORECASE) if patterns else None


def neutralize(text: str, markers: re.Pattern[str] | None = None, *, roles: bool = False) -> str:
    """Replaces the bracket of every answer tag, reasoning tag and marker of our layouts.

    Args:
        markers: Those of the layout, see `markers_in`.
        roles: Also replace the markers of turns, `[User]`, which a prompt has only if it shows a conversation.
    """
    text = _MARKERS.sub("(", text)
    if markers:
        text = markers.sub("(", text)
    return _ROLES.sub("(", text) if roles else text


def turns(text: Text) -> list[tuple[str, str]]:
    """The turns of a text in a prompt: the marker in front of each, which is layout, and its content, which is data.

    A text, and a conversation of a single user or assistant message, is one turn without a marker.
    """
    if isinstance(text, str):
        return [("", text)]
    if len(text) == 1 and text[0].role in ("user", "assistant"):
        return [("", text[0].content)]
    return [("\n\n" * (i > 0) + f"[{m.role.capitalize()}]\n", m.content) for i, m in enumerate(text)]


def shown_texts(texts: Sequence[Text], markers: re.Pattern[str] | None) -> list[str]:
    """The texts of a prompt's slots, with markers of turns, and markers in their contents neutralized."""
    split = [turns(text) for text in texts]
    roles = any(marker for text in split for marker, _ in text)
    return ["".join(marker + neutralize(c, markers, roles=roles) for marker, c in text) for text in split]
