"""The prompt of a pointwise judge: a question and one response; the answer begins with a digit, after `Score: `.

The ten digits are tokenized in context, behind the end of the prompt. What their tokens have in common belongs to the
prompt: where a vocabulary has a token for a digit with the space in front of it, the prompt ends before that space.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from jinja2 import Template

from autorater.data.messages import Text
from autorater.data.pairs import Pair
from autorater.prompts.batching import common_beginning
from autorater.prompts.encoder import EncodedPrompt, PromptEncoder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DIGITS = "0123456789"


@dataclass(frozen=True)
class ScoreFormat:
    """The format of a prompt for one response; a `SlotFormat`."""

    slots: ClassVar[tuple[str, ...]] = ("prompt", "response")
    titles: ClassVar[tuple[str, ...]] = ("Response",)
    gap: ClassVar[str] = "\n\n"
    prefill: ClassVar[str] = "Score: "
    reasoning: ClassVar[bool] = False

    @cached_property
    def text(self) -> str:
        layout = Path(__file__).with_name("layouts") / "pointwise.txt.j2"
        return Template(layout.read_text(encoding="utf-8")).render()


class ScoreEncoder(PromptEncoder):
    """Encodes single responses for one tokenizer.

    Attributes:
        digits: Tokens of the ten digits at the end of a prompt.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, format: ScoreFormat | None = None):
        super().__init__(tokenizer, format or ScoreFormat())
        endings = [tokenizer(self.context + digit, add_special_tokens=False)["input_ids"] for digit in DIGITS]
        self._ids[-1] = common_beginning(endings)
        self.digits = [ids[len(self._ids[-1]) :] for ids in endings]

    def encode(self, pairs: Sequence[Pair]) -> list[tuple[EncodedPrompt, EncodedPrompt]]:
        """Prompts of the two responses of every pair: `[(a, b), …]`. Equal responses are one object."""
        both = [((pair.prompt, pair.response_a), (pair.prompt, pair.response_b)) for pair in pairs]
        rows = list(dict.fromkeys(row for pair in both for row in pair))
        encoded = dict(zip(rows, self.encode_texts(rows), strict=True))
        return [(encoded[a], encoded[b]) for a, b in both]

    def encode_responses(self, prompt: Text, responses: Sequence[Text]) -> list[EncodedPrompt]:
        """Prompts of K responses to one prompt."""
        return self.encode_texts([(prompt, response) for response in responses])
