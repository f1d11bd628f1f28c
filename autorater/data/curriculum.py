"""A curriculum of growing responses, for policies from scratch that must learn to compare two texts.

    share of the words = exp(−3 u · max(0, 1 − t / 0.7)),  u uniform in [0, 1], t from 0 to 1 along the list

The comparison is learned on short responses and transferred to long ones (Bengio et al., ICML 2009). A policy of two
layers learned nothing in 900 steps from mixed lengths; in this order its answers correlated with the lengths by 0.96.

A fifth of the words are replaced by words drawn uniformly from all distinct ones. Otherwise the policy generalizes
badly to words of other texts: capitals, digits, rows of dots, names.

In a response that is a conversation every turn is shortened. Deliberately left out: held-out pairs, which are not.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from autorater.data.messages import Text, plain_text
from autorater.data.pairs import Pair

_WORD = re.compile(r"(\S+)(\s*)")
_HARDEST_CUT = 3.0  # exp(-3): one twentieth of the words
_GROWN = 0.7  # share of the list after which responses are complete
_REPLACED = 0.2  # share of the words


def with_growing_responses(pairs: Sequence[Pair], n: int, seed: int) -> list[Pair]:
    """Pairs in training order, from responses of a few words to complete ones.

    Args:
        pairs: N pairs.
        n: Number of pairs to return; all pairs are used equally often, up to one.
        seed: Draws the order and the shares, which differ between the two responses of a pair.

    Returns:
        n pairs. Each response keeps its beginning, at least one word; the label is that of the complete pair.
    """
    rng = np.random.default_rng(seed)
    rows = np.concatenate([rng.permutation(len(pairs)) for _ in range(-(-n // len(pairs)))])[:n]
    hardest = _HARDEST_CUT * np.clip(1 - np.linspace(0, 1, n) / _GROWN, 0, None)
    shares = np.exp(-hardest[:, None] * rng.random((n, 2)))
    texts = [text for pair in pairs for text in (pair.response_a, pair.response_b)]
    words = {word for text in texts for word, _ in _WORD.findall(plain_text(text))}
    different = np.array(sorted(words), dtype=object)  # of strings every one would be as large as the longest

    def shown(text: Text, share: float) -> Text:
        if not isinstance(text, str):
            return tuple(turn._replace(content=shown(turn.content, share)) for turn in text)
        words = _WORD.findall(text)
        beginning = words[: max(1, round(share * len(words)))]
        replaced = rng.random(len(beginning)) < _REPLACED
        others = iter(different[rng.integers(len(different), size=replaced.sum())])
        rows = zip(beginning, replaced, strict=True)
        return "".join((next(others) if is_replaced else word) + space for (word, space), is_replaced in rows).rstrip()

    return [
        replace(pair, response_a=shown(pair.response_a, in_a), response_b=shown(pair.response_b, in_b))
        for pair, (in_a, in_b) in zip((pairs[row] for row in rows), shares, strict=True)
    ]
