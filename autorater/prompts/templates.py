"""The wording of judge prompts, and the markers that texts from the data must not imitate.

The judge is asked for a number or, as a baseline, for one of the letters A and B. Two layouts: `full` explains the
task and is for pretrained models; `compact` has no explanation and is for small policies trained from scratch.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Protocol

from rewards.answer import OPEN_TAG

if TYPE_CHECKING:
    pass


_SLOTS = ("prompt", "response_a", "response_b")


_FULL = """\
Two responses to the same question are shown below. People were asked which one they prefer, and they do not all \
agree. {task}

[Question]
{prompt}

[The Start of Response A]
{response_a}
[The End of Response A]

[The Start of Response B]
{response_b}
[The End of Response B]"""


_NUMBER = """\
Estimate how likely it is that a person drawn from them prefers response B.

Give one number between 0.0 and 1.0: near 0.0 if almost everybody would choose response A, near 1.0 if almost \
everybody would choose response B, and 0.5 if they would split evenly. {how} For instance, if about three in ten \
would choose response B, the answer is <prob_rb_better>0.3</prob_rb_better>."""


_LETTER = """\
Say which response a person drawn from them prefers.

Answer with one letter alone: A or B."""


_ANSWER_ONLY = "Answer with the number alone, inside <prob_rb_better> tags."


_REASON_FIRST = (
    "First reason step by step inside <think> tags about what speaks for each response and who would care, then "
    "answer with the number alone, inside <prob_rb_better> tags."
)


_COMPACT = """\
[Question] {prompt}
[Response A] {response_a}
[Response B] {response_b}
[Answer]"""


_MARKERS = re.compile(
    r"[<\[](?=\s*/?\s*(?:think|prob_rb_better|class_probabilities)\s*>"
    r"|\s*(?:question|answer|response\s+[ab12]|the\s+(?:start|end)\s+of\s+response\s+[ab12])\s*\])",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class PromptFormat:
    """The format of a judge prompt, saved with the model.

    Args:
        layout: `full` (explains the task) or `compact`.
        reasoning: Request `<think>…</think>` first. Otherwise the prompt ends with the opening answer tag, and the
            completion is the number.
        answer: `number`, or `letter` (A or B, without a tag and without reasoning).
    """

    layout: str = "full"
    reasoning: bool = False
    answer: str = "number"

    def __post_init__(self):
        if self.layout not in ("full", "compact"):
            raise ValueError(f"prompt layout must be 'full' or 'compact', got {self.layout!r}")
        if self.answer not in ("number", "letter"):
            raise ValueError(f"an answer must be 'number' or 'letter', got {self.answer!r}")
        if self.reasoning and self.layout == "compact":
            raise ValueError("the compact layout cannot request reasoning; use layout 'full'")
        if self.reasoning and self.answer == "letter":
            raise ValueError("a letter is answered without reasoning; use answer 'number'")

    @property
    def text(self) -> str:
        if self.layout == "compact":
            return _COMPACT
        number = _NUMBER.replace("{how}", _REASON_FIRST if self.reasoning else _ANSWER_ONLY)
        return _FULL.replace("{task}", _LETTER if self.answer == "letter" else number)

    @property
    def slots(self) -> tuple[str, ...]:
        """Names of the slots in `text`, which are columns of a pair."""
        return _SLOTS

    @property
    def titles(self) -> tuple[str, ...]:
        """Markers of the layout that `neutralize` does not include."""
        return ()

    @property
    def gap(self) -> str:
        """Text between prompt and answer if there is no chat template."""
        if self.layout == "full":
            return "\n\n"
        return " " if self.answer == "number" else ""  # a letter is one token with the space in front of it

    @property
    def prefill(self) -> str:
        """Beginning of the answer, which is part of the prompt."""
        return "" if self.reasoning or self.answer == "letter" else OPEN_TAG

    def to_dict(self) -> dict:
        return asdict(self)


class SlotFormat(Protocol):
    """Interface of prompt formats: `PromptFormat` for pairs, `LabelFormat` for items."""

    text: str
    slots: tuple[str, ...]
    titles: tuple[str, ...]
    gap: str
    prefill: str
    reasoning: bool


def neutralize(text: str, titles: Sequence[str] = ()) -> str:
    """Replaces the bracket of every answer tag, reasoning tag and layout marker in a text from the data.

    Args:
        text: The text.
        titles: Markers of a layout in addition to those of pairs, without brackets.
    """
    text = _MARKERS.sub("(", text)
    if titles:
        text = re.sub(rf"\[(?=\s*(?:{'|'.join(map(re.escape, titles))})\s*\])", "(", text, flags=re.IGNORECASE)
    return text
