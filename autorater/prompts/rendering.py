"""The layout of a prompt as a chat template renders it, up to where the assistant's visible answer begins.

A chat template has no word for this place, so its generation prompt is compared with a turn of the assistant that it
renders in full:

    the turn has more text in front of the answer (a channel, a space)    it is added
    the generation prompt opens a thought                                 it is closed, or with reasoning it stays open
    the generation prompt alone has a closed, empty thought               it stays
    anything else                                                         `UserError`
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from jinja2 import TemplateError

from autorater.data.errors import UserError
from autorater.prompts.templates import SlotFormat
from rewards.answer import THINK_CLOSE

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_THINK_OPEN = "<think>"
_EMPTY_THOUGHT = re.compile(r"<think>\s*</think>\s*$")
_OTHER_THOUGHT = re.compile(r"[<\[](?!think>)(\w+:)?(think(ing)?|thoughts?|reason(ing)?)[>\]]\s*$", re.IGNORECASE)
_ANSWER = "\u2045answer\u2046"


def render_layout(
    tokenizer: PreTrainedTokenizerBase, format: SlotFormat, *, find_answer: bool = True
) -> tuple[str, ...]:
    """The rendered prompt up to the answer, split at its slots: one piece more than slots.

    Args:
        find_answer: Compare the generation prompt with a turn of the assistant; judges of older versions did not.

    Raises:
        UserError: If the chat template fails, repeats the message, or the place of the answer is not known.
    """
    marks = [f"\u2045{slot}\u2046" for slot in format.slots]
    text = "".join(piece + mark for piece, mark in zip(format.pieces, marks, strict=False)) + format.pieces[-1]
    if tokenizer.chat_template is None:
        text = f"{format.system_prompt}\n\n{text}" if format.system_prompt else text
        rendered = text + format.gap
    else:
        rendered = _Chat(tokenizer, format, text).rendered(marks[-1], find_answer)
    pieces = re.split("|".join(map(re.escape, marks)), rendered + format.prefill)
    times = (len(pieces) - 1) / len(marks)
    if times != 1:
        raise UserError(f"the chat template has the user's message {times:g} times; expected it once")
    return tuple(pieces)


class _Chat:
    """A chat template with a system prompt and a message of the user."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, format: SlotFormat, text: str):
        self._tokenizer, self._thinks, self._writes_on = tokenizer, format.reasoning, not format.prefill
        system, user = format.system_prompt, [("user", text)]
        merged = [("user", f"{system}\n\n{text}")]
        self._turns, self._parts, failed = user, False, None
        # a template may refuse a system message or leave it out, and may read parts of a message only
        cases = [([("system", system), *user], parts) for parts in (False, True)] if system else []
        cases += [(merged if system else user, parts) for parts in (False, True)]
        for self._turns, self._parts in cases:
            try:
                prompt = self._render(generate=True)
            except Exception as error:  # a template is a program: it may raise anything
                failed = failed or error
                continue
            if all(content.strip()[-40:] in prompt for _, content in self._turns):
                return
        if failed is not None:
            raise UserError(f"the chat template cannot render the judge prompt: {failed}") from None

    def _render(self, *, generate: bool, answer: str | None = None) -> str:
        turns = [*self._turns, *([] if answer is None else [("assistant", answer)])]
        return self._tokenizer.apply_chat_template(
            [
                {"role": role, "content": [{"type": "text", "text": content}] if self._parts else content}
                for role, content in turns
            ],
            tokenize=False,
            add_generation_prompt=generate,
            enable_thinking=self._thinks,  # an option of Qwen3 and GLM; other templates ignore it
            thinking=self._thinks,  # the same of DeepSeek-V3.1 and Granite
        )

    def rendered(self, last_mark: str, find_answer: bool) -> str:
        prompt = self._render(generate=True)
        if not find_answer:
            return prompt
        try:
            before, answer, _ = self._render(generate=False, answer=_ANSWER).rpartition(_ANSWER)
        except (TemplateError, TypeError, KeyError):
            answer = ""  # no turn of an assistant can be rendered
        if not answer:
            before = prompt
        end = prompt.rfind(last_mark) + len(last_mark)
        head, opening, turn = prompt[:end], prompt[end:], before[end:]
        if self._writes_on and turn.startswith(opening):  # tokens of words have their space in front
            turn = opening + turn.removeprefix(opening).rstrip(" ")
        if before[:end] != head or any(map(_OTHER_THOUGHT.search, (opening, turn))):
            raise self._unknown_place(opening, turn)
        if self._thinks:
            return head + self._before_reasoning(opening, turn)
        return head + self._before_answer(opening, turn)

    def _before_answer(self, opening: str, turn: str) -> str:
        start = turn if turn.startswith(opening) else opening
        if _is_open(start):
            return start + "\n" * (2 - len(start) + len(start.rstrip("\n"))) + THINK_CLOSE + "\n\n"
        if start != turn and not _is_same_place(_EMPTY_THOUGHT.sub("", opening), turn):
            raise self._unknown_place(opening, turn)
        return start

    def _before_reasoning(self, opening: str, turn: str) -> str:
        more = turn.removeprefix(opening) if turn.startswith(opening) else ""
        if _is_open(opening) or _THINK_OPEN in more:  # an empty thought is not written in advance
            return opening
        if not (turn.startswith(opening) or THINK_CLOSE in turn or _is_same_place(opening, turn)):
            raise self._unknown_place(opening, turn)
        return opening + more

    @staticmethod
    def _unknown_place(opening: str, turn: str) -> UserError:
        return UserError(
            f"the chat template begins an assistant's turn with {opening[-80:]!r}, but writes {turn[-80:]!r} in front "
            "of an answer; the place of the answer is not known, so expected a template that has one of them in the "
            f"other, or a thought that {THINK_CLOSE} closes"
        )


def _is_same_place(opening: str, turn: str) -> bool:
    """Whether the two differ only in white space at the end, or in another word for the role."""
    same = re.escape(turn.rstrip()).replace("assistant", r"\w+")
    return re.fullmatch(same, opening.rstrip()) is not None


def _is_open(text: str) -> bool:
    return text.rfind(_THINK_OPEN) > text.rfind(THINK_CLOSE)


def first_difference(pieces: Sequence[str], others: Sequence[str]) -> tuple[str, str] | None:
    """Where two layouts differ first, a few characters of each; None if they are equal."""
    one, other = "\u2045\u2046".join(pieces), "\u2045\u2046".join(others)
    if one == other:
        return None
    i = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return one[max(0, i - 20) : i + 20], other[max(0, i - 20) : i + 20]
