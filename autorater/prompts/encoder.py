"""Judge prompts as text and as token ids, in which a response stays data.

A prompt is a layout with slots for question, response A and response B. The layout is tokenized once and each slot is
tokenized separately, so the text of a slot cannot change a token outside it. Inside a slot

- a control token of the tokenizer (`<|im_end|>`, `</think>`, …) is split before tokenization, so that it becomes
  ordinary characters;
- an answer tag, a reasoning tag or a marker of the layout loses its bracket (`[` and `<` become `(`), because a model
  reacts to ordinary characters that look like a marker.

Deliberately left out: truncation. Over-long prompts are dropped before training and counted (`drop_long`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import TYPE_CHECKING

from autorater.data.errors import UserError
from autorater.data.pairs import Pair
from autorater.prompts.templates import PromptFormat, SlotFormat, neutralize
from rewards.answer import OPEN_TAG, THINK_CLOSE

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """A prompt in one order: text (for people and reward functions) and token ids (for the model)."""

    text: str
    ids: list[int]


class PromptEncoder:
    """Encodes pairs as prompts for one tokenizer.

    Args:
        tokenizer: Any fast tokenizer; without a chat template the layout is the whole prompt.
        format: The prompt format, `PromptFormat()` by default.

    Attributes:
        context: The text in front of an answer, used to tokenize it: the layout after the last slot, or the end of the
            reasoning and the opening answer tag.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, format: SlotFormat | None = None):
        self.tokenizer = tokenizer
        self.format = format or PromptFormat()
        self._data = DataTokenizer(tokenizer)
        self._texts = self._render_layout()  # one more piece than slots
        self.context = THINK_CLOSE + OPEN_TAG if self.format.reasoning else self._texts[-1]
        self._ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in self._texts]
        if tokenizer.chat_template is None:  # a chat template writes its own beginning-of-sequence token
            self._ids[0] = self._data.beginning() + self._ids[0]

    def encode(self, pairs: Sequence[Pair]) -> list[tuple[EncodedPrompt, EncodedPrompt]]:
        """Prompts of every pair in both orders: `[(ab, ba), …]`; in `ba` the responses are swapped."""
        texts = [(pair.prompt, pair.response_a, pair.response_b) for pair in pairs]
        return [(self._assemble(q, a, b), self._assemble(q, b, a)) for q, a, b in self._encode_slots(texts)]

    def encode_texts(self, texts: Sequence[Sequence[str]]) -> list[EncodedPrompt]:
        """Prompts of N rows of texts, one text per slot."""
        return [self._assemble(*slots) for slots in self._encode_slots(texts)]

    def _encode_slots(self, rows: Sequence[Sequence[str]]) -> list[list[tuple[str, list[int]]]]:
        """Neutralized slot texts with their token ids."""
        texts = [[neutralize(text, self.format.titles) for text in row] for row in rows]
        ids = iter(self._data.encode(chain.from_iterable(texts)))
        return [[(text, next(ids)) for text in row] for row in texts]

    def _assemble(self, *slots: tuple[str, list[int]]) -> EncodedPrompt:
        text, ids = self._texts[0], list(self._ids[0])
        for (slot_text, slot_ids), layout_text, layout_ids in zip(slots, self._texts[1:], self._ids[1:], strict=True):
            text += slot_text + layout_text
            ids += slot_ids + layout_ids
        return EncodedPrompt(text, ids)

    def _render_layout(self) -> list[str]:
        """The rendered prompt, split at its slots."""
        marks = {slot: f"\u2045{slot}\u2046" for slot in self.format.slots}
        text = self.format.text.format(**marks)
        if self.tokenizer.chat_template is None:
            text += self.format.gap
        else:
            text = self.tokenizer.apply_chat_template(
                [{"role": "user", "content": text}],
                tokenize=False,
                add_generation_prompt=True,
                enable_thinking=self.format.reasoning,  # an option of Qwen3; other templates ignore it
            )
        pieces = re.split("|".join(map(re.escape, marks.values())), text + self.format.prefill)
        times = (len(pieces) - 1) / len(marks)
        if times != 1:
            raise UserError(f"the chat template has the user's message {times:g} times; expected it once")
        return pieces


class DataTokenizer:
    """Tokenizes texts from the data with any fast tokenizer, so that none becomes a control token."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.tokenizer = tokenizer
        control = {str(token): i for token, i in tokenizer.get_added_vocab().items() if len(str(token)) > 1}
        # a look-ahead also matches overlapping occurrences; without control tokens it never matches
        self._control = re.compile(f"(?={'|'.join(map(re.escape, control)) or '(?!)'})")
        self._control_ids = set(control.values())

    def beginning(self) -> list[int]:
        """Ids that the tokenizer adds in front of a text (a beginning-of-sequence token or nothing)."""
        bare = self.tokenizer("x", add_special_tokens=False)["input_ids"]
        full = self.tokenizer("x")["input_ids"]
        return full[: next(i for i in range(len(full)) if full[i : i + len(bare)] == bare)]

    def encode(self, texts: Iterable[str]) -> list[list[int]]:
        """Token ids of every text, without control tokens."""
        pieces = [self._cut(text) for text in texts]
        encoded = iter(self._ids_of(list(chain.from_iterable(pieces))))
        out = []
        for text_pieces in pieces:
            ids = list(chain.from_iterable(next(encoded) for _ in text_pieces))
            if self._control_ids.intersection(ids):
                # a normalizer created a control token from look-alikes: tokenize character by character
                ids = list(chain.from_iterable(self._ids_of(list("".join(text_pieces)))))
            out.append(ids)
        return out

    def _ids_of(self, texts: list[str]) -> list[list[int]]:
        return self.tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []

    def _cut(self, text: str) -> list[str]:
        """Splits a text after the first character of every control token in it."""
        cuts = [0, *(m.start() + 1 for m in self._control.finditer(text)), len(text)]
        return [text[i:j] for i, j in pairwise(cuts) if i < j]
