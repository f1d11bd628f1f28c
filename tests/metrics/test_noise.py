import numpy as np
import pytest
from scipy.stats import binom

from autorater.metrics import ece_noise_floor, expected_calibration_error


def exact_floor(probabilities, votes):
    """For one row per bin the expectation is a sum of binomial mean absolute deviations."""
    outcomes = np.arange(votes + 1)
    return np.mean([binom.pmf(outcomes, votes, p) @ np.abs(outcomes / votes - p) for p in probabilities])


@pytest.mark.parametrize("votes", [1, 2, 10])
def test_against_the_binomial_sum(votes):
    probabilities = np.array([0.05, 0.15, 0.25, 0.45, 0.65, 0.95])
    floor = ece_noise_floor(probabilities, votes, n_rounds=20_000)
    assert floor == pytest.approx(exact_floor(probabilities, votes), rel=0.02)


@pytest.mark.parametrize("strategy", ["uniform", "quantile", "distinct"])
def test_a_perfect_judge_shows_the_floor(strategy):
    generator = np.random.default_rng(0)
    truth = generator.random(500).round(2)
    votes = generator.integers(1, 6, 500)
    shown = [
        expected_calibration_error(truth, generator.binomial(votes, truth) / votes, 10, strategy) for _ in range(300)
    ]
    assert ece_noise_floor(truth, votes, 10, strategy, n_rounds=300) == pytest.approx(np.mean(shown), rel=0.06)


def test_a_symmetric_judge_shows_the_floor_over_both_orders():
    generator = np.random.default_rng(1)
    truth = generator.random(400)
    both = np.concatenate([truth, 1 - truth])
    shown = []
    for _ in range(300):
        labels = (generator.random(400) < truth) * 1.0
        shown.append(expected_calibration_error(both, np.concatenate([labels, 1 - labels])))
    assert ece_noise_floor(both, n_rounds=300) == pytest.approx(np.mean(shown), rel=0.06)


def test_more_votes_and_more_rows_lower_the_floor():
    truth = np.random.default_rng(2).random(300)
    assert ece_noise_floor(truth, 16) == pytest.approx(ece_noise_floor(truth, 1) / 4, rel=0.15)
    assert ece_noise_floor(np.tile(truth, 16)) == pytest.approx(ece_noise_floor(truth) / 4, rel=0.15)


def test_certain_answers_have_no_noise():
    assert ece_noise_floor([0.0, 1.0, 1.0], 3) == 0


def test_the_seed_decides():
    assert ece_noise_floor([0.3, 0.6], seed=4) == ece_noise_floor([0.3, 0.6], seed=4)
    assert ece_noise_floor([0.3, 0.6], seed=4) != ece_noise_floor([0.3, 0.6], seed=5)
