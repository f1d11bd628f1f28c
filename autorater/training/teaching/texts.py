"""The training texts of a run, and the pairs that can be made of them.

Two responses can be compared if they answer the same prompt, in the same topic, with the same criteria, reference and
group of annotators. A vote compares two of them; a teacher can give a probability for the others too.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from autorater.data.messages import Text
from autorater.data.pairs import Pair
from autorater.judges import Judge
from autorater.models.response_states import ReadText

_COMMON = ("prompt", "topic", "criteria", "reference", "group")


@dataclass(frozen=True)
class TrainingTexts:
    """T distinct texts in G groups, and the pairs with votes.

    Attributes:
        responses: The response of every text.
        group: The group of every text, shape (T,).
        examples: A pair of every group.
        sides: The texts A and B of the N pairs with votes, shape (N, 2).
        pairs: These pairs.
        loaded: All training pairs of the run, also those that were left out: too long, or not drawn by their weight.
    """

    responses: Sequence[Text]
    group: np.ndarray
    examples: Sequence[Pair]
    sides: np.ndarray
    pairs: Sequence[Pair]
    loaded: Sequence[Pair] = ()

    @classmethod
    def of(cls, pairs: Sequence[Pair], loaded: Sequence[Pair] = ()) -> "TrainingTexts":
        """The texts of N pairs, numbered as they first appear; `loaded` as in the class."""
        groups: dict[tuple, int] = {}
        texts: dict[tuple[int, Text], int] = {}
        examples, sides = [], []
        for pair in pairs:
            group = groups.setdefault(tuple(getattr(pair, name) for name in _COMMON), len(groups))
            if group == len(examples):
                examples.append(pair)
            both = pair.response_a, pair.response_b
            sides.append([texts.setdefault((group, response), len(texts)) for response in both])
        group = np.array([group for group, _ in texts])
        return cls([response for _, response in texts], group, examples, np.array(sides), pairs, loaded)

    def __len__(self) -> int:
        return len(self.responses)

    @property
    def read(self) -> list[ReadText]:
        """Prompt and response of every text."""
        prompts = (self.examples[group].prompt for group in self.group)
        return list(zip(prompts, self.responses, strict=True))

    def pair(self, a: int, b: int) -> Pair:
        """The pair of two texts of a group, without label."""
        example, sides = self.examples[self.group[a]], (self.responses[a], self.responses[b])
        return replace(example, response_a=sides[0], response_b=sides[1], label=None)

    def alone(self, judge: Judge) -> list[list[int]]:
        """The prompt of every text for a pointwise judge; for a pairwise judge that of the text against itself.

        The prompt of two texts has the mean length of theirs, because the slots are tokenized one by one.
        """
        return [first.ids for first, _ in judge.encoder.encode([self.pair(text, text) for text in range(len(self))])]
