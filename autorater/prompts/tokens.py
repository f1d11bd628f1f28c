"""Token ids of texts that stand in the middle of a sequence, for every scheme of tokenizers.

Some tokenizers put a space in front of every text (`add_prefix_space`, and SentencePiece's dummy prefix in Llama 2,
Mistral and Phi-3), which would stand between two pieces of a prompt where the text has none. With them a text is
tokenized behind an anchor, a character that merges with nothing, and the ids of the anchor are cut off.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import chain, pairwise
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from tokenizers import AddedToken
    from transformers import PreTrainedTokenizerBase

_ANCHORS = ("\n", "\u2045", "|", "~", ".", "x", "")
_PROBES = ("x", " x", "0.5", "<x>", "(", "\u2045x")
_FAITHFUL = ("e\u0301 \uff21 \u2045\U0001f642", " aB  c\t\n\n(1) ", "".join(map(chr, range(33, 127))))
_anchors: WeakKeyDictionary[PreTrainedTokenizerBase, str] = WeakKeyDictionary()


def anchor(tokenizer: PreTrainedTokenizerBase) -> str:
    """The character in front of a text that keeps a tokenizer from adding a space; empty if it adds none."""
    if tokenizer not in _anchors:
        x, xx = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("x", "xx"))
        adds = decode(tokenizer, x + x) != decode(tokenizer, xx)
        fit = (text for text in _ANCHORS if all(_is_cut_off(tokenizer, text, probe) for probe in _PROBES))
        _anchors[tokenizer] = next(fit, "\n") if adds else ""
    return _anchors[tokenizer]


def _is_cut_off(tokenizer: PreTrainedTokenizerBase, text: str, probe: str) -> bool:
    before, both = (tokenizer(t, add_special_tokens=False)["input_ids"] for t in (text, text + probe))
    known = not (text and tokenizer.unk_token_id in before)
    return known and both[: len(before)] == before and decode(tokenizer, both).endswith(text + probe)


def decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """The text of token ids, with control tokens and every space."""
    return tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def inside_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of texts in the middle of a sequence, without a space in front that a text does not have."""
    if not texts:
        return []
    first = anchor(tokenizer)
    if not first:
        return tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    rows: list[list[int] | None] = [None] * len(texts)
    for text in (first, *(other for other in _ANCHORS if other != first)):  # one may merge with the text
        left = [i for i, ids in enumerate(rows) if ids is None]
        if not left:
            break
        before = tokenizer(text, add_special_tokens=False)["input_ids"]
        encoded = tokenizer([text + texts[i] for i in left], add_special_tokens=False)["input_ids"]
        for i, ids in zip(left, encoded, strict=True):
            if ids[: len(before)] == before:
                rows[i] = ids[len(before) :]
    return rows


def inside(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """`inside_ids` of one text."""
    return inside_ids(tokenizer, [text])[0]


def read_inside(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """The text of token ids that stand in the middle of a sequence."""
    # decoders drop a space at the start of a sequence
    before = tokenizer(anchor(tokenizer) or "x", add_special_tokens=False)["input_ids"]
    return decode(tokenizer, [*before, *ids])[len(decode(tokenizer, before)) :]


def _is_control(token: AddedToken) -> bool:
    """Whether an added token may steer a model; runs of white space (Gemma, GPT-NeoX) and plain words are text."""
    is_text = re.fullmatch(r"[\w\s▁-]+", token.content) and not token.special
    return len(token.content) > 1 and not is_text


class DataTokenizer:
    """Tokenizes texts from the data with any fast tokenizer, so that none becomes a control token."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.tokenizer = tokenizer
        control = {str(token): i for i, token in tokenizer.added_tokens_decoder.items() if _is_control(token)}
        # a look-ahead also matches overlapping occurrences; without control tokens it never matches
        self._control = re.compile(f"(?={'|'.join(map(re.escape, control)) or '(?!)'})")
        self._control_ids = set(control.values())
        any_text, *ascii_texts = (read_inside(tokenizer, inside(tokenizer, text)) == text for text in _FAITHFUL)
        self._is_faithful, self._is_faithful_to_ascii = any_text and all(ascii_texts), all(ascii_texts)

    def beginning(self) -> list[int]:
        """Ids that the tokenizer adds in front of a text (a beginning-of-sequence token or nothing)."""
        bare = self.tokenizer("x", add_special_tokens=False)["input_ids"]
        full = self.tokenizer("x")["input_ids"]
        return full[: next(i for i in range(len(full)) if full[i : i + len(bare)] == bare)]

    def is_faithful(self, text: str) -> bool:
        """Whether the tokens of a text certainly decode to it: no normalizer changes it, no token is unknown."""
        return self._is_faithful or (self._is_faithful_to_ascii and text.isascii())

    def encode(self, texts: Iterable[str]) -> list[list[int]]:
        """Token ids of every text in the middle of a sequence, without control tokens."""
        pieces = [self._cut(text) for text in texts]
        encoded = iter(inside_ids(self.tokenizer, list(chain.from_iterable(pieces))))
        out = []
        for text_pieces in pieces:
            out.append([i for piece in text_pieces for i in self._without_control(piece, next(encoded))])
        return out

    def _without_control(self, piece: str, ids: list[int]) -> list[int]:
        """The ids of a piece; of its characters one by one if a normalizer made look-alikes a control token."""
        if self._control_ids.isdisjoint(ids):
            return ids
        return list(chain.from_iterable(inside_ids(self.tokenizer, list(piece))))

    def _cut(self, text: str) -> list[str]:
        """Splits a text after the first character of every control token in it."""
        cuts = [0, *(m.start() + 1 for m in self._control.finditer(text)), len(text)]
        return [text[i:j] for i, j in pairwise(cuts) if i < j]
