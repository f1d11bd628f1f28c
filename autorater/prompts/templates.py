"""Formats of judge prompts, and the markers that texts from the data must not imitate.

The wording is in `layouts/`: `full` explains the task and is for pretrained models; `compact` has no explanation and
is for small policies trained from scratch. The answer is a number or, as a baseline, one of the letters A and B.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Protocol

from jinja2 import Template

from autorater.data.errors import UserError
from rewards.answer import OPEN_TAG

_MARKERS = re.compile(
    r"[<\[](?=\s*/?\s*(?:think|prob_rb_better|class_probabilities)\s*>"
    r"|\s*(?:question|answer|response\s+[ab12]|the\s+(?:start|end)\s+of\s+response\s+[ab12])\s*\])",
    re.IGNORECASE,
)


class SlotFormat(Protocol):
    """Interface of prompt formats: `PromptFormat` for pairs, `LabelFormat` for items."""

    text: str  # the layout, with a {name} for every slot
    slots: tuple[str, ...]
    titles: tuple[str, ...]  # markers of the layout in addition to those of pairs, without brackets
    gap: str  # text between prompt and answer if there is no chat template
    prefill: str  # beginning of the answer, which is part of the prompt
    reasoning: bool  # whether reasoning comes before the answer


@dataclass(frozen=True)
class PromptFormat:
    """The format of a judge prompt for pairs, saved with the model. Its slots are columns of a pair.

    Args:
        layout: `full` (explains the task) or `compact`.
        reasoning: Request `<think>…</think>` first. Otherwise the prompt ends with the opening answer tag, and the
            completion is the number.
        answer: `number`, or `letter` (A or B, without a tag and without reasoning).

    Raises:
        UserError: If a value is unknown, or reasoning is requested with `compact` or `letter`.
    """

    layout: str = "full"
    reasoning: bool = False
    answer: str = "number"
    slots: ClassVar[tuple[str, ...]] = ("prompt", "response_a", "response_b")
    titles: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self):
        if self.layout not in ("full", "compact"):
            raise UserError(f"prompt layout must be 'full' or 'compact', got {self.layout!r}")
        if self.answer not in ("number", "letter"):
            raise UserError(f"an answer must be 'number' or 'letter', got {self.answer!r}")
        if self.reasoning and (self.layout, self.answer) != ("full", "number"):
            raise UserError(
                f"reasoning requires layout 'full' and answer 'number', got {self.layout!r} and {self.answer!r}"
            )

    @cached_property
    def text(self) -> str:
        template = Path(__file__).with_name("layouts") / f"{self.layout}.txt.j2"
        return Template(template.read_text(encoding="utf-8")).render(asdict(self))

    @property
    def gap(self) -> str:
        if self.layout == "full":
            return "\n\n"
        return " " if self.answer == "number" else ""  # a letter is one token with the space in front of it

    @property
    def prefill(self) -> str:
        return "" if self.reasoning or self.answer == "letter" else OPEN_TAG

    def to_dict(self) -> dict:
        return asdict(self)


def neutralize(text: str, titles: Sequence[str] = ()) -> str:
    """Replaces the bracket of every answer tag, reasoning tag and layout marker; `titles` are further markers."""
    text = _MARKERS.sub("(", text)
    if titles:
        text = re.sub(rf"\[(?=\s*(?:{'|'.join(map(re.escape, titles))})\s*\])", "(", text, flags=re.IGNORECASE)
    return text
