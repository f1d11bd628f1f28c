"""Growing responses: beginnings, short at first, complete in the end, never empty."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autorater.data.curriculum import with_growing_responses
from autorater.data.messages import Message
from autorater.data.pairs import Pair

TEXTS = st.text(alphabet=st.sampled_from("ab \n\t.é\u00a0"), max_size=40)
LONG = Pair("x", "Which?", " ".join(f"a{i}" for i in range(400)), " ".join(f"b{i}" for i in range(200)), 1.0)


def _kept(pairs: list[Pair]) -> np.ndarray:
    """Shares of the words of `LONG` that are left in both responses, shape (N, 2)."""
    return np.array([(len(p.response_a.split()) / 400, len(p.response_b.split()) / 200) for p in pairs])


@given(TEXTS, TEXTS, st.integers(1, 9), st.integers(0, 99))
def test_growing_responses_are_beginnings(a, b, n, seed):
    pairs = with_growing_responses([Pair("x", "q", a, b, 0.25)], n, seed)
    assert len(pairs) == n
    for pair in pairs:
        for whole, cut in ((a, pair.response_a), (b, pair.response_b)):
            words = cut.split()
            assert len(words) <= len(whole.split())
            assert bool(words) == bool(whole.split())
            assert set(words) <= set((a + " " + b).split())
            assert [c for c in cut if c.isspace()] == [c for c in whole.strip() if c.isspace()][
                : sum(map(str.isspace, cut))
            ]


def test_a_fifth_of_the_words_is_replaced():
    frequent = Pair("x", "Which?", "so " * 400, "so " * 398 + "rare 7", 1.0)
    words = [w for p in with_growing_responses([frequent], 300, 0)[210:] for w in p.response_a.split()]
    assert words.count("rare") / len(words) == pytest.approx(0.2 / 3, abs=0.01)
    assert words.count("7") / len(words) == pytest.approx(0.2 / 3, abs=0.01)
    texts = [p.response_a.split() for p in with_growing_responses([LONG], 300, 0)[210:]]
    kept = np.mean([[word == f"a{i}" for i, word in enumerate(words)] for words in texts])
    assert kept == pytest.approx(0.8, abs=0.01)


def test_growing_responses_grow():
    kept = _kept(with_growing_responses([LONG] * 10, 4000, 0))
    cut, whole = kept[:400], kept[2800:]
    assert 0.04 < cut.min() < 0.08
    assert np.median(cut) < 0.35
    assert abs(np.corrcoef(cut.T)[0, 1]) < 0.15, "independently, so that there is a longer one"
    assert kept[1400:1800].mean() > 1.5 * cut.mean()
    assert (whole == 1).all()


def test_every_pair_grows():
    pairs = [replace(LONG, id=str(i)) for i in range(7)]
    grown = [pair.id for pair in with_growing_responses(pairs, 17, 0)]
    assert sorted(map(grown.count, (pair.id for pair in pairs))) == [2] * 4 + [3] * 3


def test_a_long_word_changes_no_draw_and_takes_its_own_memory_alone():
    def grown(last):
        tracemalloc.start()
        pairs = with_growing_responses([replace(LONG, response_a=f"{LONG.response_a} {last}")], 40, 0)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return [pair.response_a for pair in pairs], peak

    (texts, peak), (long_texts, long_peak) = grown("z"), grown("z" * 5000)
    assert [text.replace("z" * 5000, "z") for text in long_texts] == texts
    assert long_peak < peak + 2**20, "600 words of 20 KB would be 12 MB"


def test_every_turn_of_a_conversation_is_a_beginning():
    turns = (Message("assistant", "one two three"), Message("user", "four five six"), Message("assistant", "seven"))
    for pair in with_growing_responses([replace(LONG, response_a=turns)] * 4, 40, 0):
        assert [turn.role for turn in pair.response_a] == ["assistant", "user", "assistant"]
        for cut, whole in zip(pair.response_a, turns, strict=True):
            assert 1 <= len(cut.content.split()) <= len(whole.content.split())
    assert [len(turn.content.split()) for turn in pair.response_a] == [3, 3, 1], "complete in the end"


def test_seeds_give_different_draws():
    assert with_growing_responses([LONG], 1, 1) == with_growing_responses([LONG], 1, 1)
    assert with_growing_responses([LONG], 1, 1) != with_growing_responses([LONG], 1, 2)
