"""Judge prompts as text and as token ids, in which a response stays data.

A prompt is a layout with slots for question, response A, response B and more (`autorater.prompts.templates`). The
layout is tokenized once and each slot is tokenized separately, so the text of a slot cannot change a token outside it.
Inside a slot

- a control token of the tokenizer (`<|im_end|>`, `</think>`, …) is split before tokenization, so that it becomes
  ordinary characters;
- an answer tag, a reasoning tag, a marker of the layout, or one of the chat template that is no token of the tokenizer
  loses its bracket (`[` and `<` become `(`), because a model reacts to ordinary characters that look like a marker.

A conversation has `[User]`, `[Assistant]`, … in front of its turns. They are layout, and a turn cannot forge them.
Deliberately left out: truncation. Over-long prompts are dropped before training and counted (`drop_long`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from autorater.data.errors import UserError
from autorater.data.messages import Text, plain_text
from autorater.data.pairs import Pair
from autorater.prompts.markers import control_texts, neutralize, turns
from autorater.prompts.rendering import first_difference, render_layout
from autorater.prompts.templates import PromptFormat, SlotFormat
from autorater.prompts.tokens import DataTokenizer, decode, inside, read_inside
from rewards.answer import OPEN_TAG, THINK_CLOSE

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)
_Encoded = tuple[str, list[int]]


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
        pieces: The rendered layout of a saved judge or of a run, see `render_layout`; by default it is rendered now.

    Attributes:
        pieces: The rendered layout.
        context: The text in front of an answer, used to tokenize it: the layout after the last slot, or the end of the
            reasoning and the opening answer tag.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        format: SlotFormat | None = None,
        pieces: Sequence[str] | None = None,
    ):
        self.tokenizer = tokenizer
        self.format = format or PromptFormat()
        self._data = DataTokenizer(tokenizer)
        self.pieces = render_layout(tokenizer, self.format) if pieces is None else tuple(pieces)
        self._control_texts = control_texts(self.pieces, [str(t) for t in tokenizer.added_tokens_decoder.values()])
        self.context = THINK_CLOSE + OPEN_TAG if self.format.reasoning else self.pieces[-1]
        first = tokenizer(self.pieces[0], add_special_tokens=False)["input_ids"]
        self._ids = [first, *(inside(tokenizer, piece) for piece in self.pieces[1:])]
        self._texts = [decode(tokenizer, first), *(read_inside(tokenizer, ids) for ids in self._ids[1:])]
        if tokenizer.chat_template is None:  # a chat template writes its own beginning-of-sequence token
            self._ids[0] = self._data.beginning() + first
        self._roles: dict[str, _Encoded] = {"": ("", [])}
        self._warned = False

    def encode(self, pairs: Sequence[Pair]) -> list[tuple[EncodedPrompt, EncodedPrompt]]:
        """Prompts of every pair in both orders: `[(ab, ba), …]`; in `ba` the responses are swapped.

        Raises:
            UserError: If a pair has no value for a slot; names the pair.
        """
        self._warn_of_unshown(pairs)
        a, b = self.format.responses
        prompts = []
        for slots in self._encode_slots([self.format.values(pair) for pair in pairs]):
            swapped = list(slots)
            swapped[a], swapped[b] = slots[b], slots[a]
            prompts.append((self._assemble(slots), self._assemble(swapped)))
        return prompts

    def most_tokens(self, pair: Pair) -> int:
        """At least as many tokens as a prompt of the pair has, without tokenizing it; errors as in `encode`."""
        return self._most_tokens(self.format.values(pair))

    def _most_tokens(self, texts: Sequence[Text]) -> int:
        # a token has at least a byte, unless a normalizer makes a text longer
        n_bytes = sum(len(plain_text(text).encode(errors="surrogatepass")) for text in texts)
        return sum(map(len, self._ids)) + n_bytes

    def _warn_of_unshown(self, pairs: Sequence[Pair]) -> None:
        if not self._warned and (warning := self.format.unshown(pairs)):
            logger.warning(warning)
            self._warned = True

    def encode_texts(self, texts: Sequence[Sequence[Text]]) -> list[EncodedPrompt]:
        """Prompts of N rows of texts, one text per slot in the order of the layout."""
        return [self._assemble(slots) for slots in self._encode_slots(texts)]

    def _encode_slots(self, rows: Sequence[Sequence[Text]]) -> Iterator[list[_Encoded]]:
        """The text and the token ids of every slot."""
        split = [[turns(text) for text in row] for row in rows]
        contents = []
        for row in split:
            roles = any(marker for text in row for marker, _ in text)
            contents += [(self._neutral(c, roles), roles) for text in row for _, c in text]
        encoded = zip(contents, self._data.encode(content for content, _ in contents), strict=True)
        for row in split:
            slots = []
            for text in row:
                parts = [part for marker, _ in text for part in (self._role(marker), self._as_read(*next(encoded)))]
                slots.append(("".join(part for part, _ in parts), [i for _, ids in parts for i in ids]))
            yield slots

    def _neutral(self, text: str, roles: bool) -> str:
        return self._control_texts.sub("(", neutralize(text, self.format.markers, roles=roles))

    def _role(self, marker: str) -> _Encoded:
        if marker not in self._roles:
            ids = inside(self.tokenizer, marker)
            self._roles[marker] = read_inside(self.tokenizer, ids), ids
        return self._roles[marker]

    def _as_read(self, content: tuple[str, bool], ids: list[int]) -> _Encoded:
        """A content as its tokens say it; a normalizer may have changed it, even into a marker."""
        text, roles = content
        if self._data.is_faithful(text):
            return text, ids
        read = read_inside(self.tokenizer, ids)
        if (safe := self._neutral(read, roles)) != read:
            (ids,) = self._data.encode([safe])
            read = read_inside(self.tokenizer, ids)
        return read, ids

    def _assemble(self, slots: Sequence[_Encoded]) -> EncodedPrompt:
        text, ids = self._texts[0], list(self._ids[0])
        for (slot_text, slot_ids), layout_text, layout_ids in zip(slots, self._texts[1:], self._ids[1:], strict=True):
            text += slot_text + layout_text
            ids += slot_ids + layout_ids
        return EncodedPrompt(text, ids)


def log_layout_difference(encoder: PromptEncoder) -> None:
    """Logs where the layout in use, a saved one, differs from what the tokenizer's chat template gives now."""
    try:
        pieces = render_layout(encoder.tokenizer, encoder.format)
    except UserError as error:
        logger.info(f"{error}; the saved prompt layout is used")
        return
    if found := first_difference(encoder.pieces, pieces):
        logger.info(
            f"the chat template would now write {found[1]!r} where the saved prompt layout has {found[0]!r}; the "
            "saved layout is used"
        )
