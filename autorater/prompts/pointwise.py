"""The prompt of a pointwise judge: a question and one response; the answer begins with a digit, after `Score: `.

The ten digits are tokenized in context, behind the end of the prompt. What their tokens have in common belongs to the
prompt: where a vocabulary has a token for a digit with the space in front of it, the prompt ends before that space.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from autorater.data.messages import Text
from autorater.data.pairs import Pair
from autorater.prompts.beginnings import common_beginning
from autorater.prompts.encoder import EncodedPrompt, PromptEncoder
from autorater.prompts.templates import TemplateFormat
from autorater.prompts.tokens import inside_ids, read_inside

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DIGITS = "0123456789"


@dataclass(frozen=True)
class ScoreFormat(TemplateFormat):
    """The format of a prompt for one response; arguments as in `PromptFormat`.

    Its template has the slots `{prompt}` and `{response}`, and asks for a score from 0 to 9.
    """

    template: str = "pointwise"
    system_prompt: str | None = None
    criteria: str | None = None
    reference: str | None = None
    source: str = ""
    required: ClassVar[tuple[str, ...]] = ("prompt", "response")
    built_in: ClassVar[tuple[str, ...]] = ("pointwise",)
    gap: ClassVar[str] = "\n\n"
    prefill: ClassVar[str] = "Score: "
    reasoning: ClassVar[bool] = False


class ScoreEncoder(PromptEncoder):
    """Encodes single responses for one tokenizer.

    Attributes:
        digits: Tokens of the ten digits at the end of a prompt.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        format: ScoreFormat | None = None,
        pieces: Sequence[str] | None = None,
    ):
        super().__init__(tokenizer, format or ScoreFormat(), pieces)
        endings = inside_ids(tokenizer, [self.context + digit for digit in DIGITS])
        self._ids[-1] = common_beginning(endings)
        self._texts[-1] = read_inside(tokenizer, self._ids[-1])
        self.digits = [ids[len(self._ids[-1]) :] for ids in endings]

    def encode(self, pairs: Sequence[Pair]) -> list[tuple[EncodedPrompt, EncodedPrompt]]:
        """Prompts of the two responses of every pair: `[(a, b), …]`. Equal responses are one object."""
        rows, both = self.responses(pairs)
        encoded = self.encode_texts(rows)
        return [(encoded[a], encoded[b]) for a, b in both]

    def responses(self, pairs: Sequence[Pair]) -> tuple[list[tuple[Text, ...]], list[tuple[int, int]]]:
        """The texts of R distinct responses, one per slot, and the indices of the two responses of every pair."""
        self._warn_of_unshown(pairs)
        index: dict[tuple[Text, ...], int] = {}
        both = [tuple(index.setdefault(row, len(index)) for row in self._rows(pair)) for pair in pairs]
        return list(index), both

    def most_tokens(self, pair: Pair) -> int:
        return max(self._most_tokens(row) for row in self._rows(pair))

    def _rows(self, pair: Pair) -> list[tuple[Text, ...]]:
        return [tuple(self.format.values(pair, response=text)) for text in (pair.response_a, pair.response_b)]

    def encode_responses(self, prompt: Text, responses: Sequence[Text]) -> list[EncodedPrompt]:
        """Prompts of K responses to one prompt."""
        pairs = [Pair(str(i), prompt, response, response, label=None) for i, response in enumerate(responses)]
        return self.encode_texts([self.format.values(pair, response=pair.response_a) for pair in pairs])
