import numpy as np
import pytest

from autorater.charm.arena import FLOURISH, MODELS, Arena
from autorater.metrics.systems import expected_win_rate, win_rates

NAMES = [model.name for model in MODELS]


def test_exact_win_rates_are_those_of_many_pairs():
    arena = Arena()
    exact = arena.win_rates()
    np.testing.assert_allclose(exact + exact.T, 1, atol=1e-12)
    pairs = arena.pairs(6000, seed=0)
    columns = {name: [getattr(pair, name) for pair in pairs] for name in ("model_a", "model_b")}
    rows = win_rates(
        [pair.true_probability for pair in pairs], [pair.label for pair in pairs], **columns, n_bootstrap=0
    )
    for row in rows:
        rate = exact[NAMES.index(row.model), NAMES.index(row.opponent)]
        assert row.judged == pytest.approx(rate, abs=4 * 0.3 / np.sqrt(row.n_pairs))
        assert row.voted == pytest.approx(rate, abs=4 * 0.5 / np.sqrt(row.n_pairs))


def test_elo_gives_the_exact_win_rates():
    arena = Arena()
    elo = np.array([rating.elo for rating in arena.elo().values()])
    assert list(arena.elo()) == NAMES
    assert (np.diff(elo[[0, 1, 2, 3, 4, 5, 6, 7]]) < 0).all(), "the strongest model is first"
    np.testing.assert_allclose(expected_win_rate(elo[:, None], elo), arena.win_rates(), atol=0.01)


def test_only_the_biased_annotator_likes_the_flourish():
    def over_large(pairs):
        won = [(p.label if p.model_b == "velvet-large" else 1 - p.label) for p in pairs
               if (p.model_a == "velvet-large") != (p.model_b == "velvet-large")]  # fmt: skip
        return np.mean(won)

    arena = Arena()
    fair = np.delete(arena.win_rates()[NAMES.index("velvet-large")], NAMES.index("velvet-large")).mean()
    assert over_large(arena.pairs(5000, seed=1)) == pytest.approx(fair, abs=0.05)
    assert over_large(arena.pairs(5000, seed=1, biased=True)) > fair + 0.1


def test_responses_are_of_all_models_to_distinct_prompts():
    responses = Arena().responses(50, seed=0)
    assert len({r.prompt for r in responses}) == 50
    assert [r.model for r in responses[:8]] == NAMES
    shown = np.mean([any(f in r.text for f in FLOURISH) for r in responses if r.model == "velvet-large"])
    assert shown == pytest.approx(0.9, abs=0.15)
    assert not {r.prompt for r in responses} & {r.prompt for r in Arena().responses(50, seed=0, held_out=True)}
    assert responses == Arena().responses(50, seed=0)
    with pytest.raises(ValueError, match="n_prompts is 100000; expected a number from 1 to"):
        Arena().responses(100_000, seed=0)


def test_true_probability_is_that_of_unbiased_annotators():
    pairs = Arena(bias=50.0).pairs(200, seed=3, biased=True)
    assert 0.2 < np.mean([p.true_probability for p in pairs]) < 0.8
