import numpy as np
import pytest
from scipy.stats import binom

from autorater.metrics import calibration_metrics, ece_noise_floor, expected_calibration_error, noise_floors


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
    assert ece_noise_floor(truth, votes, strategy, n_rounds=300) == pytest.approx(np.mean(shown), rel=0.06)


def test_a_symmetric_judge_shows_the_floor_over_both_orders():
    generator = np.random.default_rng(1)
    truth = generator.random(400)
    both = np.concatenate([truth, 1 - truth])
    shown = []
    for _ in range(300):
        labels = (generator.random(400) < truth) * 1.0
        shown.append(expected_calibration_error(both, np.concatenate([labels, 1 - labels])))
    assert ece_noise_floor(both, n_rounds=300) == pytest.approx(np.mean(shown), rel=0.06)


@pytest.mark.parametrize(("p", "rows", "votes"), [(0.5, 205, 1), (0.05, 1100, 1), (0.002, 26_000, 1), (0.3, 50, 5)])
def test_bins_of_many_votes_need_no_simulation(p, rows, votes):
    """The sum is binomial; its votes have a variance of 51 to 53, just past the limit."""
    outcomes = np.arange(rows * votes + 1)
    exact = binom.pmf(outcomes, rows * votes, p) @ np.abs(outcomes / votes - rows * p) / rows
    floors = [ece_noise_floor(np.full(rows, p), votes, n_rounds=1, seed=seed) for seed in range(2)]
    assert floors[0] == floors[1] == pytest.approx(exact, rel=0.005)


def test_bins_of_few_and_of_many_votes_add_up():
    few, many = np.full(30, 0.05), np.full(900, 0.75)
    both = ece_noise_floor(np.concatenate([few, many]), n_rounds=20_000) * 930
    assert both == pytest.approx(
        30 * ece_noise_floor(few, n_rounds=20_000, seed=1) + 900 * ece_noise_floor(many), rel=0.01
    )


def test_floors_are_what_a_perfect_judge_shows_on_average():
    generator = np.random.default_rng(0)
    truth, votes = generator.random(300).round(2), generator.integers(1, 6, 300)
    shown = [calibration_metrics(truth, generator.binomial(votes, truth) / votes) for _ in range(150)]
    floors = noise_floors(truth, votes)
    assert set(floors) == {"brier", "log_loss", "mse_dense", "ece", "ece_quantile"}
    for key, floor in floors.items():
        rel = 0.1 if key.startswith("ece") else 0.015
        assert floor == pytest.approx(np.mean([report[key] for report in shown]), rel=rel), key
    assert noise_floors(truth) == {key: floors[key] for key in ("brier", "log_loss")}


def test_more_votes_and_more_rows_lower_the_floor():
    truth = np.random.default_rng(2).random(300)
    assert ece_noise_floor(truth, 16) == pytest.approx(ece_noise_floor(truth, 1) / 4, rel=0.15)
    assert ece_noise_floor(np.tile(truth, 16)) == pytest.approx(ece_noise_floor(truth) / 4, rel=0.15)


def test_certain_answers_have_no_noise():
    assert ece_noise_floor([0.0, 1.0, 1.0], 3) == 0


def test_the_seed_decides():
    assert ece_noise_floor([0.3, 0.6], seed=4) == ece_noise_floor([0.3, 0.6], seed=4)
    assert ece_noise_floor([0.3, 0.6], seed=4) != ece_noise_floor([0.3, 0.6], seed=5)
