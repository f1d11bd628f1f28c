"""Judge prompts, as text and as token ids in which a response stays data.

A prompt is a layout (ours) with three slots (the data's): question, response A, response B. The layout is tokenized
once, the slots are tokenized on their own and put in between, so what stands in a slot cannot change a token outside
it. Inside a slot

- a control token of the tokenizer (`<|im_end|>`, `</think>`, …) is cut before it is tokenized, so it arrives as the
  ordinary characters that it is;
- an answer tag, a reasoning tag or a marker of our own layout loses its bracket (`[` and `<` become `(`), because to
  a model ordinary characters that look like a marker work like one.

The question is for a number, or, to compare with, for one of the letters A and B. Two layouts: `full` explains the
task and is for pretrained models; `compact` is for small policies trained from scratch, to whom an explanation is only
more tokens to read. Deliberately left out: truncation. A prompt that does not fit is dropped before training and
counted (`drop_long`), never cut.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import TYPE_CHECKING

from autorater.data.pairs import Pair
from rewards.answer import OPEN_TAG, THINK_CLOSE

if TYPE_CHECKING:  # the words of a prompt are also sent to servers, which needs no torch
    from transformers import PreTrainedTokenizerBase
from autorater.prompts.templates import _SLOTS, PromptFormat, SlotFormat, neutralize


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """A prompt in one order: its text (for people and reward functions) and its token ids (for the model)."""

    text: str
    ids: list[int]


class PromptEncoder:
    """Turns pairs into prompts for one tokenizer.

    Args:
        tokenizer: Any fast tokenizer; its chat template is used if it has one, else the layout is the whole prompt.
        format: What to ask.

    Attributes:
        context: The text behind which an answer is tokenized: the layout behind the last slot, or the end of the
            reasoning and the opening answer tag.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, format: SlotFormat | None = None):
        self.tokenizer = tokenizer
        self.format = format or PromptFormat()
        self._data = DataTokenizer(tokenizer)
        self._texts = self._render_layout()  # one piece of layout more than there are slots
        self.context = THINK_CLOSE + OPEN_TAG if self.format.reasoning else self._texts[-1]
        bos, has_template = self._data.beginning(), tokenizer.chat_template is not None
        self._ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in self._texts]
        if not has_template:  # a chat template writes its own beginning-of-sequence token
            self._ids[0] = bos + self._ids[0]

    def encode(self, pairs: Sequence[Pair]) -> list[tuple[EncodedPrompt, EncodedPrompt]]:
        """Prompts of every pair in both orders: `[(ab, ba), …]`; in `ba` the responses have changed places."""
        texts = [[getattr(pair, slot) for slot in _SLOTS] for pair in pairs]
        return [(self._assemble(q, a, b), self._assemble(q, b, a)) for q, a, b in self._encode_slots(texts)]

    def encode_texts(self, texts: Sequence[Sequence[str]]) -> list[EncodedPrompt]:
        """Prompts of N rows of texts, one text a slot."""
        return [self._assemble(*slots) for slots in self._encode_slots(texts)]

    def _encode_slots(self, rows: Sequence[Sequence[str]]) -> list[list[tuple[str, list[int]]]]:
        """Texts as they stand in their slots, with their token ids."""
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
        """The rendered prompt, cut at its slots."""
        marks = {slot: f"\u2045{slot}\u2046" for slot in self.format.slots}
        text = self.format.text.format(**marks)
        if self.tokenizer.chat_template is not None:
            text = self.tokenizer.apply_chat_template(
                [{"role": "user", "content": text}],
                tokenize=False,
                add_generation_prompt=True,
                enable_thinking=self.format.reasoning,  # Qwen3's switch; other templates ignore it
            )
        else:
            text += self.format.gap
        text += self.format.prefill
        pieces = re.split("|".join(map(re.escape, marks.values())), text)
        if len(pieces) != len(marks) + 1:
            raise ValueError(
                f"the chat template shows the user's message {(len(pieces) - 1) / len(marks):g} times, "
                "a judge prompt needs it exactly once"
            )
        return pieces


class DataTokenizer:
    """Tokenizes texts from the data so that none of them becomes a control token.

    Args:
        tokenizer: Any fast tokenizer.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.tokenizer = tokenizer
        added = sorted((str(t) for t in tokenizer.get_added_vocab() if len(str(t)) > 1), key=len, reverse=True)
        # a look-ahead finds overlapping occurrences too
        self._control = re.compile(f"(?=({'|'.join(map(re.escape, added))}))") if added else None
        self._control_ids = {i for t, i in tokenizer.get_added_vocab().items() if len(str(t)) > 1}

    def beginning(self) -> list[int]:
        """Ids that the tokenizer puts in front of a text (a beginning-of-sequence token or nothing)."""
        bare = self.tokenizer("x", add_special_tokens=False)["input_ids"]
        full = self.tokenizer("x")["input_ids"]
        return full[: next(i for i in range(len(full)) if full[i : i + len(bare)] == bare)]

    def encode(self, texts: Iterable[str]) -> list[list[int]]:
        """Token ids of every text, none of them a control token."""
        pieces = [self._cut(text) for text in texts]
        flat = list(chain.from_iterable(pieces))
        encoded = iter(self.tokenizer(flat, add_special_tokens=False)["input_ids"] if flat else [])
        out = []
        for text_pieces in pieces:
            ids = list(chain.from_iterable(next(encoded) for _ in text_pieces))
            if self._control_ids.intersection(ids):
                # a normalizer made a control token out of look-alikes: spell the text out
                spelled = self.tokenizer(list("".join(text_pieces)), add_special_tokens=False)["input_ids"]
                ids = list(chain.from_iterable(spelled))
            out.append(ids)
        return out

    def _cut(self, text: str) -> list[str]:
        """Cuts a text behind the first character of every control token in it."""
        if self._control is None:
            return [text]
        cuts = [0, *(m.start() + 1 for m in self._control.finditer(text)), len(text)]
        return [text[i:j] for i, j in pairwise(cuts) if i < j]
