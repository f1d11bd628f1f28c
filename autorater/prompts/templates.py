"""Templates of judge prompts: text files with slots. Ours are in `layouts/`; docs/prompts.md says how to write one.

    {prompt} {response_a} {response_b}        the texts of a pair, each once
    {criteria} {reference} {group}            optional columns of a pair
    {how_to_answer}                           optional: where our instruction how to answer stands

`{{name}}` is the literal text `{name}`; braces around anything but a name, such as JSON, are literal text. Without
`{how_to_answer}` a template asks for the answer tag itself, or the instruction is appended. One that ends with the
opening tag has the instruction only where `{how_to_answer}` stands.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar, NamedTuple, Protocol, Self

from jinja2 import Template

from autorater.data.errors import UserError
from autorater.data.messages import Text
from autorater.data.pairs import Pair
from autorater.prompts.markers import markers_in
from rewards.answer import OPEN_TAG

_LAYOUTS = Path(__file__).with_name("layouts")
BUILT_IN = ("compact", "criteria", "full", "mt_bench", "scored", "short")
HOW_TO_ANSWER = "how_to_answer"
_SLOT = re.compile(r"(\{+)([^\W\d]\w*)(\}+)")


class Wording(NamedTuple):
    """What the responses are called, and whether our instruction how to answer is in other words."""

    names: tuple[str, str] = ("A", "B")
    paraphrased: bool = False


AS_IT_IS = Wording()


class SlotFormat(Protocol):
    """Interface of prompt formats: `PromptFormat` for pairs, `ScoreFormat` for responses, `LabelFormat` for items."""

    slots: tuple[str, ...]  # in the order of the layout
    pieces: tuple[str, ...]  # the layout around the slots, one more than slots
    markers: re.Pattern[str] | None  # of the layout, see `markers_in`
    gap: str  # text between prompt and answer if there is no chat template
    prefill: str  # beginning of the answer, which is part of the prompt
    reasoning: bool  # whether reasoning comes before the answer
    system_prompt: str | None
    responses: tuple[int, int]  # places of the responses among the slots, if they show pairs

    def values(self, pair: Pair) -> list[Text]: ...

    def unshown(self, pairs: Collection[Pair]) -> str | None: ...

    def to_dict(self) -> dict[str, object]: ...


class TemplateFormat:
    """What the formats have in common whose layout is a template; a frozen dataclass inherits from it.

    It has the fields `template`, `system_prompt`, `criteria`, `reference` and `source` of `PromptFormat`.
    """

    required: ClassVar[tuple[str, ...]]
    optional: ClassVar[tuple[str, ...]] = ("criteria", "reference", "group")
    built_in: ClassVar[tuple[str, ...]]

    def __post_init__(self):
        if not self.source:
            object.__setattr__(self, "source", read_template(self.template, self.built_in))
        for name in ("criteria", "reference"):
            if (value := getattr(self, name)) is not None and (name not in self.slots or not value.strip()):
                reason = f"{self._place} has no slot {{{name}}}" if name not in self.slots else "it is blank"
                raise UserError(f"{name}: no effect, because {reason}")
        for name in (*self.required, *self.optional):
            if f"{{{name}}}" in (self.system_prompt or ""):
                raise UserError(f"system_prompt has {{{name}}}; slots stand in the template, not in the system prompt")

    @property
    def _place(self) -> str:
        return f"prompt template {self.template}"

    @cached_property
    def _parsed(self) -> tuple[list[str], list[str]]:
        return parse_template(self.source.rstrip(), self._place, self.required, self.optional)

    @cached_property
    def pieces(self) -> tuple[str, ...]:
        """The layout around the slots; one piece more than slots."""
        return tuple(self._parsed[0])

    @property
    def slots(self) -> tuple[str, ...]:
        return tuple(slot for slot in self._parsed[1] if slot != HOW_TO_ANSWER)

    @cached_property
    def markers(self) -> re.Pattern[str] | None:
        return markers_in(self.pieces)

    @property
    def text(self) -> str:
        """The prompt with `{slots}`, for people."""
        parts = [f"{piece}{{{slot}}}" for piece, slot in zip(self.pieces, self.slots, strict=False)]
        return "".join(parts) + self.pieces[-1]

    @property
    def described(self) -> str:
        """The text with the system prompt and the values for all pairs in front, for people."""
        names = ("system_prompt", "criteria", "reference")
        filled = [f"{name}: {value}" for name in names if (value := getattr(self, name)) is not None]
        return "\n\n".join([*filled, self.text])

    def values(self, pair: Pair, **texts: Text) -> list[Text]:
        """The text of every slot: of `texts`, of the pair or for all; a UserError names a pair that has none."""
        return [self._value(pair, slot, texts.get(slot)) for slot in self.slots]

    def _value(self, pair: Pair, slot: str, value: Text | None) -> Text:
        for source in (pair, self):
            value = getattr(source, slot, None) if value is None else value
        if value is None:
            also = "; a population has none" if slot == "group" else f", or {slot} for all pairs"
            raise UserError(
                f"pair {pair.id!r} has no {slot}, which {self._place} shows; expected a value in the column {slot}"
                f"{also}"
            )
        return value

    def unshown(self, pairs: Collection[Pair]) -> str | None:
        """A warning if pairs have criteria or a reference that the template does not show; else None."""
        return unshown(pairs, self.slots, self._place)

    def with_options(self, template: str | None = None, **options: object) -> Self:
        """The format with other values of its options; None keeps one. A new template drops those of the old one."""
        new = {} if template is None else dict.fromkeys(("system_prompt", "criteria", "reference")) | {"source": ""}
        new |= {} if template is None else {"template": template}
        return replace(self, **new | {name: value for name, value in options.items() if value is not None})

    def to_dict(self) -> dict[str, object]:
        """The format as JSON values, for `from_dict`."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_dict(cls, saved: Mapping[str, object]) -> Self:
        """The format of a judge's `autorater.json`; in older files a built-in template is the `layout`."""
        names = {"layout": "template"}
        return cls(**{names.get(name, name): value for name, value in saved.items()})


@dataclass(frozen=True)
class PromptFormat(TemplateFormat):
    """The format of a judge prompt for pairs, saved with the model.

    Args:
        template: A file, or a name of `BUILT_IN`: `full` explains the task, `compact` is for small policies from
            scratch.
        reasoning: Request `<think>…</think>` first. Otherwise the prompt ends with the opening answer tag, and the
            completion is the number.
        answer: `number`, or `letter` (A or B, without a tag and without reasoning).
        system_prompt: A system message in front of the prompt.
        criteria, reference: Fill these slots for pairs without a value of their own.
        source: The text of the template; by default it is read from `template`.
        wording: `paraphrase`: our instruction how to answer in other words, to measure their effect.

    Raises:
        UserError: If the template is not valid (names its line), or the options do not fit it or each other.
    """

    template: str = "full"
    reasoning: bool = False
    answer: str = "number"
    system_prompt: str | None = None
    criteria: str | None = None
    reference: str | None = None
    source: str = ""
    wording: str | None = None
    required: ClassVar[tuple[str, ...]] = ("prompt", "response_a", "response_b")
    optional: ClassVar[tuple[str, ...]] = (*TemplateFormat.optional, HOW_TO_ANSWER)
    built_in: ClassVar[tuple[str, ...]] = BUILT_IN

    def __post_init__(self):
        if self.answer not in ("number", "letter"):
            raise UserError(f"an answer must be 'number' or 'letter', got {self.answer!r}")
        if self.reasoning and self.answer == "letter":
            raise UserError("reasoning requires the answer 'number', got 'letter'")
        super().__post_init__()
        pieces, slots = self._parsed
        if slots.index("response_b") < slots.index("response_a"):
            raise UserError(
                f"{self._place} shows {{response_b}} first; expected {{response_a}} first: an answer is about the "
                "response shown second, and every pair is judged in both orders"
            )
        asks = HOW_TO_ANSWER not in slots and any(OPEN_TAG in piece for piece in pieces)
        if self.reasoning and self.is_bare:
            raise UserError(f"{self._place} ends with {OPEN_TAG}; reasoning requires a template without it at the end")
        if self.reasoning and asks and not any("<think>" in piece for piece in pieces):
            raise UserError(
                f"{self._place} asks for the answer, but for no reasoning inside <think> tags; ask for both, or write "
                f"{{{HOW_TO_ANSWER}}} in place of the answer tag, and our instruction stands there"
            )
        if self.answer == "letter" and asks and not self.is_bare:
            raise UserError(f"{self._place} asks for a number; answers by letter require {{{HOW_TO_ANSWER}}} instead")
        if self.wording and asks:
            raise UserError(
                f"{self._place} has no instruction of ours ({{{HOW_TO_ANSWER}}}) that could be paraphrased"
            )

    @cached_property
    def paraphrased(self) -> Self:
        """The same format with our instruction how to answer in other words; UserError if it has none."""
        return replace(self, wording="paraphrase")

    @property
    def is_bare(self) -> bool:
        """Whether the template ends with the opening tag."""
        return self._parsed[0][-1].endswith(OPEN_TAG)

    @cached_property
    def pieces(self) -> tuple[str, ...]:
        """The layout around the slots, with the instruction how to answer; one piece more than slots."""
        pieces, slots = map(list, self._parsed)
        if self.is_bare:
            pieces[-1] = pieces[-1].removesuffix(OPEN_TAG).rstrip()
        if HOW_TO_ANSWER not in slots and any(OPEN_TAG in piece for piece in self._parsed[0]):
            return tuple(pieces)
        file = _LAYOUTS / f"{'_'.join(filter(None, (HOW_TO_ANSWER, self.wording)))}.txt.j2"
        instruction = Template(file.read_text(encoding="utf-8")).render(asdict(self))
        if HOW_TO_ANSWER in slots:
            i = slots.index(HOW_TO_ANSWER)
            pieces[i : i + 2] = [pieces[i] + instruction + pieces[i + 1]]
        else:
            pieces[-1] += "\n\n" + instruction
        return tuple(pieces)

    @property
    def responses(self) -> tuple[int, int]:
        """Places of response A and response B among the slots."""
        return self.slots.index("response_a"), self.slots.index("response_b")

    @property
    def gap(self) -> str:
        if not self.is_bare:
            return "\n\n"
        before = self._parsed[0][-1].removesuffix(OPEN_TAG)
        # a letter is one token with the space in front of it
        return before[len(before.rstrip()) :] if self.answer == "number" else ""

    @property
    def prefill(self) -> str:
        return "" if self.reasoning or self.answer == "letter" else OPEN_TAG


def unshown(pairs: Collection[Pair], slots: Collection[str], place: str) -> str | None:
    """A warning if pairs have criteria or a reference that no slot shows; else None."""
    names = [name for name in ("criteria", "reference") if name not in slots]
    found = [name for name in names if any(getattr(pair, name) is not None for pair in pairs)]
    missing = " and ".join(f"{{{name}}}" for name in found)
    return f"the judge does not see {' and '.join(found)} of the pairs: {place} has no {missing}" if found else None


def read_template(name: str, built_in: Collection[str] = BUILT_IN) -> str:
    """The text of a built-in template or of a file.

    Raises:
        UserError: If there is none, or the file is not text in UTF-8.
    """
    path = _LAYOUTS / f"{name}.txt" if name in built_in else Path(name)
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(
            f"prompt template {name!r}: no such file; expected a text file, or one of {', '.join(built_in)}"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"prompt template {name!r} cannot be read ({error}); expected text in UTF-8") from None


def parse_template(
    text: str, place: str, required: Collection[str], optional: Collection[str] = ()
) -> tuple[list[str], list[str]]:
    """The pieces of a template around its slots, one more than slots, and the names of the slots.

    Args:
        place: The file, for errors.
        required, optional: Names of slots that occur once, or at most once.

    Raises:
        UserError: If a slot is missing, unknown, twice, or lacks a brace; names the file and the line.
    """
    known, pieces, slots, end, lines = (*required, *optional), [""], [], 0, {}

    def fail(position: int, reason: str):
        raise UserError(f"{place}, line {text.count(chr(10), 0, position) + 1}: {reason}")

    for found in _SLOT.finditer(text):
        opened, name, closed = found.groups()
        pieces[-1] += text[end : found.start()]
        end = found.end()
        if min(len(opened), len(closed)) > 1:  # one brace less on each side
            pieces[-1] += opened[1:] + name + closed[1:]
            continue
        if name not in known:
            expected = ", ".join(f"{{{slot}}}" for slot in known)
            fail(found.start(), f"unknown slot {{{name}}}; expected one of {expected}, or {{{{{name}}}}} for the text")
        if name in slots:
            fail(found.start(), f"slot {{{name}}} is there already, in line {lines[name]}; expected it once")
        slots.append(name)
        lines[name] = text.count("\n", 0, found.start()) + 1
        pieces[-1] += opened[1:]
        pieces.append(closed[1:])
    pieces[-1] += text[end:]

    names = "|".join(map(re.escape, known))
    others = re.compile(r"\{[^{}\n]*\w,?[ \t]+\w[^{}\n]*\}")  # closed, and several words
    blanked = text
    for pattern in (_SLOT, others):
        blanked = pattern.sub(lambda found: " " * len(found[0]), blanked)
    if odd := re.search(rf"\{{[ \t]*({names})(?![\w:,=])|(?<![\w:,=.])({names})[ \t]*\}}", blanked):
        fail(odd.start(), f"{odd[0]!r} is not a slot; expected {{{odd[1] or odd[2]}}}")
    if missing := [name for name in required if name not in slots]:
        double = re.search(rf"\{{\{{\s*{missing[0]}\s*\}}\}}", text)
        where = f" (line {text.count(chr(10), 0, double.start()) + 1} has it with double braces)" if double else ""
        raise UserError(f"{place}: slot {{{missing[0]}}} is missing{where}; expected it once")
    return pieces, slots
