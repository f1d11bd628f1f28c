"""Preference for a trait beyond people's: exact cases, invariance, and what an audit can see."""

import numpy as np
import pytest

from autorater.metrics.intervals import bootstrap, point_estimate
from autorater.metrics.position_audit import audit_metrics
from autorater.metrics.preferences import detectable_effect, pairs_for_effect, trait_statistics


def values(trait, p, y):
    return {name: point_estimate(s) for name, s in trait_statistics("t", trait, p, y).items()}


@pytest.fixture
def pairs():
    generator = np.random.default_rng(0)
    return generator.normal(size=200), generator.random(200) * 0.5 + 0.25, generator.integers(0, 4, 200) / 3


def test_a_judge_that_adds_to_the_votes(pairs):
    trait, _, labels = pairs
    found = values(trait, labels + 0.1 * trait, labels)
    assert found["t_bias"] == pytest.approx(0.1)
    assert found["t_effect"] == pytest.approx(0.1 + trait @ (labels - 0.5) / (trait @ trait))
    assert values(trait, labels, labels)["t_bias"] == pytest.approx(0, abs=1e-12)


def test_it_does_not_matter_which_response_is_called_b(pairs):
    trait, p, y = pairs
    sign = np.random.default_rng(1).choice([-1, 1], 200)
    swapped = values(sign * trait, np.where(sign < 0, 1 - p, p), np.where(sign < 0, 1 - y, y))
    assert swapped == pytest.approx(values(trait, p, y))


def test_pairs_without_a_trait_or_votes_do_not_count(pairs):
    trait, p, y = pairs
    known = values(trait[:50], p[:50], y[:50])
    holes = np.where(np.arange(200) < 50, y, np.nan)
    assert values(trait, p, holes)["t_bias"] == pytest.approx(known["t_bias"])
    assert values(np.where(np.arange(200) < 50, trait, np.nan), p, y) == pytest.approx(known)
    assert set(values(trait, p, None)) == {"t_effect"}
    assert values(np.zeros(200), p, y) == {}
    assert set(values(trait, p, np.full(200, np.nan))) == {"t_effect"}


def test_it_is_measured_on_the_answers_in_both_orders(pairs):
    trait, p, y = pairs
    answers = np.stack([p + 0.2, 1 - p + 0.2], axis=1)  # a position bias that cancels out
    found = audit_metrics(answers, y, traits={"t": trait}, n_bootstrap=50)
    expected = values(trait, p, y)
    assert {key: found[key] for key in expected} == pytest.approx(expected)
    assert found["t_bias_low"] < found["t_bias"] < found["t_bias_high"]
    assert "t_bias" not in audit_metrics(answers, y, n_bootstrap=0)


def test_the_detectable_effect_has_the_promised_power():
    """A mean of 0.2 standard deviations: the audit of as many pairs as are asked for finds it in 80 % of the cases."""
    generator = np.random.default_rng(2)
    trait = np.ones(400)
    pilot = {"n_pairs": 400.0} | bootstrap(trait_statistics("t", trait, generator.normal(0.5, 0.3, 400), None), 2000)
    needed = pairs_for_effect(pilot, "t_effect", 0.06)
    assert needed == pytest.approx((2.8 * 0.3 / 0.06) ** 2, rel=0.15)
    assert pairs_for_effect(pilot, "t_effect", detectable_effect(pilot, "t_effect")) == 400
    draws = generator.normal(0.06, 0.3, (2000, int(needed)))
    found = np.abs(draws.mean(axis=1)) > 1.96 * draws.std(axis=1) / np.sqrt(needed)
    assert np.mean(found) == pytest.approx(0.8, abs=0.07)
    assert detectable_effect({"t_effect": 0.1}, "t_effect") is None
    assert pairs_for_effect({"n_pairs": 2.0}, "t_effect", 0.1) is None
