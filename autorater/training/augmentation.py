"""Training pairs with shorter responses: words left out at random, or the end cut off.

    with_dropped_words   one rate a pair, uniform between 0 and twice the mean; every word is left out at that rate
    with_cut_responses   every response keeps the beginning of itself, a share of its words uniform between 0 and 1

Where few responses stand in many pairs, a policy learns by heart which of them wins, and is sure of it in pairs that
it has never seen. With words left out no response is the same in two pairs, so there is only what its words have in
common with other responses to learn from (word dropout, Iyyer et al., ACL 2015; random deletion, Wei & Zou, arXiv
1901.11196). Both responses of a pair lose words at the same rate: which of them is the longer one stays true.

Deliberately left out: pairs to be measured on, which stay whole; the label, which stays that of the whole pair.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np

from autorater.pairs import Pair

_WORD = re.compile(r"\S+\s*")


def with_dropped_words(pairs: Iterable[Pair], rate: float, seed: int) -> list[Pair]:
    """Leaves words out of both responses of every pair.

    Args:
        pairs: N pairs.
        rate: Mean share of the words that is left out, in [0, 0.5]; 0 changes nothing.
        seed: Draws the words.

    Returns:
        N pairs in the given order, with other responses; one that had a word has one.
    """
    rng = np.random.default_rng(seed)

    def thinned(text: str, share: float) -> str:
        draws = [(rng.random(), word) for word in _WORD.findall(text)]
        last = max(draws, default=None)
        return "".join(draw[1] for draw in draws if draw[0] >= share or draw is last)

    return [_with_responses(pair, thinned, [rng.uniform(0, 2 * rate)] * 2) for pair in pairs] if rate else list(pairs)


def with_cut_responses(pairs: Iterable[Pair], seed: int) -> list[Pair]:
    """Cuts every response of every pair behind a random share of its words, at least one.

    Args:
        pairs: N pairs.
        seed: Draws the shares, which differ between the two responses of a pair.

    Returns:
        N pairs in the given order, with other responses.
    """
    rng = np.random.default_rng(seed)

    def cut(text: str, share: float) -> str:
        words = _WORD.findall(text)
        return "".join(words[: max(1, round(share * len(words)))]).rstrip()

    return [_with_responses(pair, cut, rng.random(2)) for pair in pairs]


def _with_responses(pair: Pair, shorten: Callable[[str, float], str], shares: Sequence[float]) -> Pair:
    return replace(
        pair, response_a=shorten(pair.response_a, shares[0]), response_b=shorten(pair.response_b, shares[1])
    )
