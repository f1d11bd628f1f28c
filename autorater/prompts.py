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
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Protocol, TypeVar

from autorater.pairs import Pair
from rewards.answer import OPEN_TAG, THINK_CLOSE

if TYPE_CHECKING:  # the words of a prompt are also sent to servers, which needs no torch
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

T = TypeVar("T")

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
    """How a judge is asked. Saved with the model, so that it is asked the same way ever after.

    Args:
        layout: `full` (explains the task) or `compact`.
        reasoning: Ask for `<think>…</think>` first. If not, the prompt ends with the opening answer tag, and the
            completion is the number.
        answer: `number`, or `letter`: which response, A or B; there is no tag then, and no reasoning.
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
            raise ValueError("the compact layout has no words to ask for reasoning; use layout 'full'")
        if self.reasoning and self.answer == "letter":
            raise ValueError("a letter is asked for without reasoning; use answer 'number'")

    @property
    def text(self) -> str:
        if self.layout == "compact":
            return _COMPACT
        number = _NUMBER.replace("{how}", _REASON_FIRST if self.reasoning else _ANSWER_ONLY)
        return _FULL.replace("{task}", _LETTER if self.answer == "letter" else number)

    @property
    def slots(self) -> tuple[str, ...]:
        """Names of the slots in `text`: columns of a pair."""
        return _SLOTS

    @property
    def titles(self) -> tuple[str, ...]:
        """Markers of the layout that `neutralize` does not know by itself."""
        return ()

    @property
    def gap(self) -> str:
        """What stands between the text and the answer where no chat template puts something there."""
        if self.layout == "full":
            return "\n\n"
        return " " if self.answer == "number" else ""  # a letter is one token with the space in front of it

    @property
    def prefill(self) -> str:
        """The beginning of the answer, which is part of the prompt."""
        return "" if self.reasoning or self.answer == "letter" else OPEN_TAG

    def to_dict(self) -> dict:
        return asdict(self)


class SlotFormat(Protocol):
    """What a `PromptEncoder` needs of a format: of `PromptFormat` for probabilities of pairs, or of another one."""

    text: str
    slots: tuple[str, ...]
    titles: tuple[str, ...]
    gap: str
    prefill: str
    reasoning: bool


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """A prompt in one order: its text (for people and reward functions) and its token ids (for the model)."""

    text: str
    ids: list[int]


def neutralize(text: str, titles: Sequence[str] = ()) -> str:
    """Takes the bracket off every answer tag, reasoning tag and layout marker in a text that is data.

    Args:
        titles: Markers of a layout besides those of pairs, without their brackets.
    """
    text = _MARKERS.sub("(", text)
    if titles:
        text = re.sub(rf"\[(?=\s*(?:{'|'.join(map(re.escape, titles))})\s*\])", "(", text, flags=re.IGNORECASE)
    return text


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


def longest_prompt(model: PreTrainedModel, answer_tokens: int, wanted: int | None = None) -> int:
    """Longest prompt, in tokens, that leaves a model room for an answer; at most `wanted`."""
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    limits = [limit for limit in (wanted, context and context - answer_tokens) if limit is not None]
    return min(limits, default=sys.maxsize)


def drop_long(
    pairs: Sequence[T], prompts: Sequence[tuple[EncodedPrompt, EncodedPrompt]], max_tokens: int
) -> tuple[list[T], list[tuple[EncodedPrompt, EncodedPrompt]], int]:
    """Leaves out the pairs (or what stands for them) whose prompt is too long in either order, and counts them.

    Returns:
        The pairs and prompts that stay, and the number left out.
    """
    kept = [
        (pair, both) for pair, both in zip(pairs, prompts, strict=True) if max(len(p.ids) for p in both) <= max_tokens
    ]
    return [pair for pair, _ in kept], [both for _, both in kept], len(pairs) - len(kept)


def like_lengths(sizes: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Row numbers of prompts of like size, the largest first, in batches.

    Args:
        sizes: Tokens that every prompt takes with what is put behind it.
        budget: Tokens of a batch at most, padding included; a single prompt may be larger.
    """
    rows: list[int] = []
    for i in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        if rows and (len(rows) + 1) * sizes[rows[0]] > budget:
            yield rows
            rows = []
        rows.append(i)
    if rows:
        yield rows


def pad_prompts(
    prompts: Sequence[list[int]], pad_token_id: int, device: torch.device | str | None = None, side: str = "left"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask of B prompts, padded on the left (or the right): shape (B, L) each."""
    import torch

    longest = max(map(len, prompts))

    def filled(row: list[int], filler: int) -> list[int]:
        blank = [filler] * (longest - len(row))
        return blank + row if side == "left" else row + blank

    ids = [filled(prompt, pad_token_id) for prompt in prompts]
    mask = [filled([1] * len(prompt), 0) for prompt in prompts]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)
