"""The layout of a prompt as a chat template renders it, up to where the assistant's visible answer begins.

A chat template has no word for this place, so its generation prompt is compared with a turn of the assistant that it
renders in full:

    the turn has more text in front of the answer (a channel, a space)    it is added
    the two differ in white space, or in the word for the role            the generation prompt stays
    the generation prompt opens a thought                                 it is closed, or with reasoning it stays open
    the generation prompt alone has a closed, empty thought               it stays
    it has one in other words than <think>, because thinking is off       it stays, also with reasoning
    anything else                                                         `UserError`

Only what follows the message is compared: a template may write the system prompt into the last message of the user.
The message itself must be there as it is, but for white space, because the texts of pairs are put into it later.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from autorater.data.errors import UserError
from autorater.prompts.beginnings import shared_length
from autorater.prompts.templates import SlotFormat
from rewards.answer import THINK_CLOSE

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_THINK_TAG = re.compile(r"</?think>")
_CLOSED_THOUGHT = re.compile(r"(<think>\s*)?</think>\s*$")
_OTHER_THOUGHT = re.compile(  # <thinking>, [THINK], <seed:think>, <|START_THINKING|>, <|channel>thought, ◁think▷
    r"[<\[\u25c1](?!think>)\|?(\w+\|?>|(start|begin)_(of_)?|\w+:)?"
    r"(think(ing)?|thoughts?|reason(ing)?|analysis)(:\w+)?(\|?[>\]\u25b7]|<\|\w+\|>)?\s*$",
    re.IGNORECASE,
)
_SWITCH = re.compile(r"/(no_)?think")  # SmolLM3 and Nemotron read it in a system prompt, and take it out
_BEGUN_TAG = re.compile(r"[<\[][^>\]]*$")
_ANSWER = "\u2045answer\u2046"
_WHAT_TO_DO = "a chat template of your own is the file chat_template.jinja in a local copy of the model"


def render_layout(
    tokenizer: PreTrainedTokenizerBase, format: SlotFormat, *, find_answer: bool = True
) -> tuple[str, ...]:
    """The rendered prompt up to the answer, split at its slots: one piece more than slots.

    Args:
        find_answer: Compare the generation prompt with a turn of the assistant; judges of older versions did not.

    Raises:
        UserError: If the chat template fails, repeats or changes the message, or the place of the answer is not known.
    """
    marks = [f"\u2045{slot}\u2046" for slot in format.slots]
    text = "".join(piece + mark for piece, mark in zip(format.pieces, marks, strict=False)) + format.pieces[-1]
    if tokenizer.chat_template is None:
        text = f"{format.system_prompt}\n\n{text}" if format.system_prompt else text
        rendered = text + format.gap
    else:
        rendered = _Chat(tokenizer, format, text, marks[-1], strict=find_answer).rendered(find_answer)
    pieces = re.split("|".join(map(re.escape, marks)), rendered + format.prefill)
    times = (len(pieces) - 1) / len(marks)
    if times != 1:
        raise UserError(f"{_name(tokenizer)} has the user's message {times:g} times; expected it once ({_WHAT_TO_DO})")
    return tuple(pieces)


class _Chat:
    """A chat template with a system prompt and a message of the user."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, format: SlotFormat, text: str, last_mark: str, *, strict: bool = True
    ):
        self._tokenizer, self._thinks, self._writes_on = tokenizer, format.reasoning, not format.prefill
        end = _squeezed(last_mark + text.rpartition(last_mark)[2])
        self._end = re.compile(r"\s*".join(map(re.escape, end)))  # of the message, in which white space may differ
        system, user = format.system_prompt, [("user", text)]
        merged = [("user", f"{system}\n\n{text}")]
        # a template may refuse a system message or leave it out, and may read parts of a message only
        cases = [([("system", system), *user], parts) for parts in (False, True)] if system else []
        cases += [(merged if system else user, parts) for parts in (False, True)]
        rendered, failures = [], {}
        for self._turns, self._parts in cases:
            try:
                prompt = self._render(generate=True)
            except Exception as error:  # a template is a program: it may raise anything
                failures[self._parts] = error
                continue
            if self._is_shown_in(prompt):
                return
            rendered.append((self._turns, self._parts))
        if failures and (strict or not rendered):
            reason = failures.get(False) or failures[True]
            raise UserError(f"{_name(tokenizer)} cannot render the judge prompt: {reason} ({_WHAT_TO_DO})") from None
        if strict:
            raise UserError(
                f"{_name(tokenizer)} leaves the judge prompt out or changes its words; expected them as they are "
                f"({_WHAT_TO_DO})"
            )
        self._turns, self._parts = rendered[0]

    def _render(self, *, generate: bool, answer: str | None = None, thinks: bool | None = None) -> str:
        turns = [*self._turns, *([] if answer is None else [("assistant", answer)])]
        thinks = self._thinks if thinks is None else thinks
        return self._tokenizer.apply_chat_template(
            [
                {"role": role, "content": [{"type": "text", "text": content}] if self._parts else content}
                for role, content in turns
            ],
            tokenize=False,
            add_generation_prompt=generate,
            enable_thinking=thinks,  # an option of Qwen3, GLM and Gemma 4; other templates ignore it
            thinking=thinks,  # the same of DeepSeek-V3.1 and Granite
            reasoning=thinks,  # the same of Command A
        )

    def _is_shown_in(self, prompt: str) -> bool:
        """Whether a rendered prompt has every message, but for white space and a switch of thoughts."""
        rest = _squeezed(prompt)
        for role, content in reversed(self._turns):  # the words of the system prompt may also stand in the message
            forms = map(_squeezed, (content, _SWITCH.sub("", content)) if role == "system" else (content,))
            shown = next((form for form in forms if form in rest), None)
            if shown is None:
                return False
            rest = rest.replace(shown, "", 1)
        return True

    def rendered(self, find_answer: bool) -> str:
        prompt = self._render(generate=True)
        if not find_answer:
            return prompt
        head, opening = self._split(prompt)
        if self._thinks and self._thinks_in_other_words(opening):
            self._thinks = False  # its own thought stays empty, and the judge reasons in the visible answer
            head, opening = self._split(self._render(generate=True))
            return head + self._place(opening, reasoning=False)
        return head + self._place(opening, reasoning=self._thinks)

    def _split(self, rendered: str) -> tuple[str, str]:
        """A rendered chat up to the end of the user's message, and what follows it."""
        found = [*self._end.finditer(rendered)]
        end = found[-1].end() if found else 0
        return rendered[:end], rendered[end:]

    def _thinks_in_other_words(self, opening: str) -> bool:
        """Whether the option to think changes the beginning of a turn, and nothing there is a `<think>`."""
        _, other = self._split(self._render(generate=True, thinks=False))
        return opening != other and not any(map(_THINK_TAG.search, (opening, other)))

    def _place(self, opening: str, *, reasoning: bool) -> str:
        turn = self._turn() or opening
        if self._writes_on and turn.startswith(opening):  # tokens of words have their space in front
            turn = opening + turn.removeprefix(opening).rstrip(" ")
        if any(map(_OTHER_THOUGHT.search, (opening, turn))):
            raise self._unknown_place(opening, turn)
        return self._before_reasoning(opening, turn) if reasoning else self._before_answer(opening, turn)

    def _turn(self) -> str:
        """What stands between the user's message and an answer; empty if no turn of an assistant can be rendered."""
        try:
            before, answer, _ = self._render(generate=False, answer=_ANSWER).rpartition(_ANSWER)
        except Exception:  # as above
            return ""
        head, turn = self._split(before)
        return turn if answer and head else ""

    def _before_answer(self, opening: str, turn: str) -> str:
        start = turn if turn.startswith(opening) else opening
        if _is_open(start):
            closed = start + "\n" * (2 - len(start) + len(start.rstrip("\n"))) + THINK_CLOSE + "\n\n"
            return closed + ("" if start == turn else self._behind_thought(opening, turn))
        if start != turn and not _is_same_place(*(_CLOSED_THOUGHT.sub("", text) for text in (opening, turn))):
            more = self._after_empty_thought(opening, turn)
            if more is None:
                raise self._unknown_place(opening, turn)
            return start + more
        return start

    def _behind_thought(self, opening: str, turn: str) -> str:
        """What an answer has in front of it in a turn without the thought that is open: `<response>` in ERNIE's."""
        both = _BEGUN_TAG.sub("", opening[: shared_length(opening, turn)])
        if _THINK_TAG.sub("", opening.removeprefix(both)).strip():
            return ""
        return _CLOSED_THOUGHT.sub("", turn.removeprefix(both)).lstrip("\n")

    def _after_empty_thought(self, opening: str, turn: str) -> str | None:
        """What an answer has in front of it behind an empty thought, which the generation prompt has since thinking is
        off; None if it has none."""
        _, thinking = self._split(self._render(generate=True, thinks=True))
        if thinking == opening:
            return None
        both = _BEGUN_TAG.sub("", opening[: shared_length(opening, turn)])
        if any(_is_same_place(start, turn) for start in (both, thinking)):
            return ""
        opens = thinking.startswith(both) and _OTHER_THOUGHT.search(thinking)
        return turn.removeprefix(both) if thinking == both or opens else None

    def _before_reasoning(self, opening: str, turn: str) -> str:
        more = turn.removeprefix(opening) if turn.startswith(opening) else ""
        if _is_open(opening) or _THINK_TAG.search(more):  # an empty thought is not written in advance
            return opening
        if not (turn.startswith(opening) or THINK_CLOSE in turn or _is_same_place(opening, turn)):
            raise self._unknown_place(opening, turn)
        return opening + more

    def _unknown_place(self, opening: str, turn: str) -> UserError:
        return UserError(
            f"{_name(self._tokenizer)} begins an assistant's turn with {opening[-80:]!r}, but writes {turn[-80:]!r} "
            "in front of an answer; the place of the answer is not known, so expected a template that has one of them "
            f"in the other, or a thought that {THINK_CLOSE} closes ({_WHAT_TO_DO})"
        )


def _name(tokenizer: PreTrainedTokenizerBase) -> str:
    name = tokenizer.name_or_path
    return f"the chat template of {name}" if name else "the chat template"


def _squeezed(text: str) -> str:
    """A text without its white space."""
    return "".join(text.split())


def _is_same_place(opening: str, turn: str) -> bool:
    """Whether the two differ only in white space, or in another word for the role."""
    same = re.escape(_squeezed(turn)).replace("assistant", r"\w+")
    return re.fullmatch(same, _squeezed(opening)) is not None


def _is_open(text: str) -> bool:
    return text.rfind("<think>") > text.rfind(THINK_CLOSE)


def first_difference(pieces: Sequence[str], others: Sequence[str]) -> tuple[str, str] | None:
    """Where two layouts differ first, a few characters of each; None if they are equal."""
    one, other = "\u2045\u2046".join(pieces), "\u2045\u2046".join(others)
    if one == other:
        return None
    i = shared_length(one, other)
    return one[max(0, i - 20) : i + 20], other[max(0, i - 20) : i + 20]
