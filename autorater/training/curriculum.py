"""A curriculum for a policy that has to find out that there are two responses to compare: they grow.

    share of the words = exp(−3 u · max(0, 1 − t / 0.7)),  u uniform in [0, 1], t from 0 to 1 along the list

What is to be compared is found out on short responses and then carried over to long ones (Bengio et al., ICML 2009). A
policy of two layers that was taught on cuts of all lengths mixed had found out nothing after 900 steps; taught in this
order, its answers correlated with the lengths by 0.96.

Deliberately left out: pairs to be measured on, which stay whole.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from autorater.pairs import Pair

_WORD = re.compile(r"\S+\s*")
_HARDEST_CUT = 3.0  # to one twentieth of the words
_GROWN = 0.7  # of the list; behind it responses are whole


def with_growing_responses(pairs: Sequence[Pair], n: int, seed: int) -> list[Pair]:
    """Pairs to be learned in their order, from responses of a few words to whole ones.

    Args:
        pairs: N pairs.
        n: How many to make of them; each pair is taken as often as any other, or once more.
        seed: Draws the order and the shares, which differ between the two responses of a pair.

    Returns:
        n pairs. A response keeps its beginning, at least one word; the label stays that of the whole pair.
    """
    rng = np.random.default_rng(seed)
    rows = np.concatenate([rng.permutation(len(pairs)) for _ in range(-(-n // len(pairs)))])[:n]
    hardest = _HARDEST_CUT * np.clip(1 - np.linspace(0, 1, n) / _GROWN, 0, None)
    shares = np.exp(-hardest[:, None] * rng.random((n, 2)))
    return [
        replace(pair, response_a=_beginning(pair.response_a, in_a), response_b=_beginning(pair.response_b, in_b))
        for pair, (in_a, in_b) in zip((pairs[row] for row in rows), shares, strict=True)
    ]


def _beginning(text: str, share: float) -> str:
    words = _WORD.findall(text)
    return "".join(words[: max(1, round(share * len(words)))]).rstrip()
