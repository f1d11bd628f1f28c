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


def shown_in_both_orders(p_ab, p_ba, votes, strategy, weights, n_rounds=300):
    """The ECE over both orders of pairs whose votes are drawn from p_ab, over and over."""
    generator = np.random.default_rng(1)
    both, weights = np.concatenate([p_ab, p_ba]), np.tile(weights, 2)
    for _ in range(n_rounds):
        labels = generator.binomial(votes, p_ab) / votes
        yield expected_calibration_error(both, np.concatenate([labels, 1 - labels]), 10, strategy, weights)


@pytest.mark.parametrize("strategy", ["uniform", "quantile", "distinct"])
@pytest.mark.parametrize("answers", [None, [0.3, 0.5, 0.7], [0.1, 0.4, 0.5, 0.5, 0.5, 0.9]])
def test_a_symmetric_judge_shows_the_floor_over_both_orders(strategy, answers):
    generator = np.random.default_rng(2)
    truth = generator.random(400) if answers is None else generator.choice(answers, 400)
    votes, weights = generator.integers(1, 4, 400), generator.random(400)
    shown = [*shown_in_both_orders(truth, 1 - truth, votes, strategy, weights)]
    floor = ece_noise_floor(
        np.concatenate([truth, 1 - truth]), np.tile(votes, 2), strategy, 300, 0, np.tile(weights, 2), both_orders=True
    )
    assert floor == pytest.approx(np.mean(shown), rel=0.06)


@pytest.mark.parametrize(("p_ab", "p_ba"), [(0.5, 0.5), (0.62, 0.66)])
def test_votes_on_two_orders_in_one_bin_cancel(p_ab, p_ba):
    """So they do for a judge with a position bias, whose error is the same whatever the votes are."""
    shown = [*shown_in_both_orders(np.full(50, p_ab), np.full(50, p_ba), 1, "uniform", np.ones(50))]
    assert shown == pytest.approx([abs(p_ab + p_ba - 1) / 2] * 300)
    both = np.repeat([p_ab, p_ba], 50)
    assert ece_noise_floor(both, both_orders=True) == 0 < 0.04 < ece_noise_floor(both)
    with pytest.raises(ValueError, match="probabilities has length 99; expected as many of order ab as of ba"):
        ece_noise_floor(both[1:], both_orders=True)


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
