"""The simulated population: p* by brute force, votes that follow it, texts that show their traits."""

import numpy as np
import pytest

from autorater.data.population import GRADER, PERSONAS, PHRASES, TRAITS, Persona, Population, simulate_pairs


def brute_force(population, a, b):
    """p* of one pair, persona by persona and order by order."""
    total = 0.0
    for persona in population.personas:
        logit = sum(persona.taste.get(t, 0) * (b[i] - a[i]) for i, t in enumerate(TRAITS)) / population.noise
        shown_second = [1 / (1 + np.exp(-(logit + s * population.position_bias))) for s in (1, -1)]
        total += persona.share * np.mean(shown_second)
    return total / sum(p.share for p in population.personas)


@pytest.mark.parametrize("population", [Population(), Population(noise=2.5), Population(position_bias=1.5)])
def test_preference_equals_brute_force(population):
    pairs = simulate_pairs(40, population, seed=3)
    expected = [brute_force(population, a, b) for a, b in zip(pairs.traits_a, pairs.traits_b, strict=True)]
    np.testing.assert_allclose([p.true_probability for p in pairs.pairs], expected, rtol=1e-12)


@pytest.mark.parametrize("position_bias", [0.0, 2.0])
def test_swapping_the_responses_complements_the_truth(position_bias):
    pairs = simulate_pairs(30, seed=1)
    population = Population(position_bias=position_bias)
    forward = population.preference(pairs.traits_a, pairs.traits_b)
    np.testing.assert_allclose(population.preference(pairs.traits_b, pairs.traits_a), 1 - forward)


def test_votes_follow_the_truth():
    pairs = simulate_pairs(4000, n_votes=5, seed=0).pairs
    truth = np.array([p.true_probability for p in pairs])
    share = np.array([p.label for p in pairs])
    standard_error = np.sqrt((truth * (1 - truth) / 5).mean() / len(pairs))
    assert abs((share - truth).mean()) < 4 * standard_error
    expected = (truth * (1 - truth) / 5).mean()
    assert ((share - truth) ** 2).mean() == pytest.approx(expected, rel=0.1)
    assert truth.var() > 0.04, "p* should not be close to 0.5 everywhere"
    assert all(p.votes_a + p.votes_b == p.n_votes == 5 for p in pairs)


def test_texts_show_their_traits_and_no_others():
    pairs = simulate_pairs(50, seed=2)
    for pair, a, b in zip(pairs.pairs, pairs.traits_a, pairs.traits_b, strict=True):
        for text, traits in ((pair.response_a, a), (pair.response_b, b)):
            shown = [any(phrase.format(s=pair.topic) in text for phrase in PHRASES[t]) for t in TRAITS]
            assert shown == traits.astype(bool).tolist()
        assert pair.topic in pair.prompt


def test_held_out_subjects_are_not_in_training_pairs():
    train, test = simulate_pairs(500, seed=0), simulate_pairs(500, seed=0, held_out=True)
    assert not {p.topic for p in train.pairs} & {p.topic for p in test.pairs}
    assert not {p.id for p in train.pairs} & {p.id for p in test.pairs}


def test_same_seed_same_pairs():
    assert simulate_pairs(20, seed=5).pairs == simulate_pairs(20, seed=5).pairs
    assert simulate_pairs(20, seed=5).pairs != simulate_pairs(20, seed=6).pairs


def test_shares_change_the_truth():
    pairs = simulate_pairs(20, seed=0)
    only_optimists = Population().with_shares([0, 0, 0, 0, 0, 0, 1])
    expected = Population(personas=PERSONAS[-1:]).preference(pairs.traits_a, pairs.traits_b)
    np.testing.assert_allclose(only_optimists.preference(pairs.traits_a, pairs.traits_b), expected)
    assert GRADER not in PERSONAS


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Population(noise=0), "noise must be > 0, got 0"),
        (lambda: Population(personas=(Persona("x", -1, {}),)), "shares of personas must be >= 0"),
        (lambda: Population(personas=(Persona("x", 1, {"taste": 1}),)), r"unknown traits \['taste'\]"),
        (lambda: Population(personas=(Persona("x", 0, {}),)), "not all 0"),
        (lambda: Population().with_shares([1, 2]), "got 2 persona shares for 7"),
        (lambda: simulate_pairs(0), "at least 1"),
        (lambda: simulate_pairs(5, n_votes=0), "at least 1"),
    ],
)
def test_invalid_populations(make, message):
    with pytest.raises(ValueError, match=message):
        make()
