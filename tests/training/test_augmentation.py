"""Shorter responses: what is left is theirs, as much as was asked for, and never nothing."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autorater.pairs import Pair
from autorater.training.augmentation import with_cut_responses, with_dropped_words

TEXTS = st.text(alphabet=st.sampled_from("ab \n\t.é\u00a0"), max_size=40)
LONG = Pair("x", "Which?", " ".join(f"a{i}" for i in range(400)), " ".join(f"b{i}" for i in range(200)), 1.0)


def _kept(pairs: list[Pair]) -> np.ndarray:
    """Shares of the words of `LONG` that are left in both responses, shape (N, 2)."""
    return np.array([(len(p.response_a.split()) / 400, len(p.response_b.split()) / 200) for p in pairs])


@given(TEXTS, TEXTS, st.floats(0, 0.5), st.integers(0, 99))
def test_dropped_words_leave_the_others_in_order(a, b, rate, seed):
    (pair,) = with_dropped_words([Pair("x", "q", a, b, 0.25, topic="t")], rate, seed)
    assert replace(pair, response_a=a, response_b=b) == Pair("x", "q", a, b, 0.25, topic="t")
    for whole, thinned in ((a, pair.response_a), (b, pair.response_b)):
        rest = iter(whole.split())
        assert all(word in rest for word in thinned.split()), "a subsequence"
        assert bool(thinned.split()) == bool(whole.split())


@given(TEXTS, TEXTS, st.integers(0, 99))
def test_cut_responses_are_beginnings(a, b, seed):
    (pair,) = with_cut_responses([Pair("x", "q", a, b, 0.25)], seed)
    for whole, cut in ((a, pair.response_a), (b, pair.response_b)):
        words = cut.split()
        assert words == whole.split()[: len(words)]
        assert bool(words) == bool(whole.split())


@pytest.mark.parametrize("rate", [0.1, 0.4, 0.5])
def test_dropping_rate(rate):
    kept = _kept(with_dropped_words([LONG] * 500, rate, 0))
    np.testing.assert_allclose(kept.mean(axis=0), 1 - rate, atol=4 * 2 * rate / np.sqrt(12 * 500))
    assert np.abs(kept[:, 0] - kept[:, 1]).max() < 0.2, "both responses lose the same share, but for chance"
    assert kept.max() > 1 - rate / 10, "some pairs are as good as whole"


def test_no_dropping_is_no_change():
    assert with_dropped_words([LONG, LONG], 0.0, 0) == [LONG, LONG]


def test_cuts_are_wide_and_independent():
    kept = _kept(with_cut_responses([LONG] * 2000, 0))
    np.testing.assert_allclose(np.quantile(kept, [0.25, 0.5, 0.75], axis=0).T, [[0.25, 0.5, 0.75]] * 2, atol=0.04)
    assert kept.min() < 0.01
    assert kept.max() > 0.99
    assert abs(np.corrcoef(kept.T)[0, 1]) < 0.08


def test_seeds_draw_differently():
    for shorten in (lambda seed: with_dropped_words([LONG], 0.4, seed), lambda seed: with_cut_responses([LONG], seed)):
        assert shorten(1) == shorten(1)
        assert shorten(1) != shorten(2)
