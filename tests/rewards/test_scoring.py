"""The scoring rules: values by hand, propriety on a fine grid, and the scores of invalid answers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards import BrierReward, KLReward, LogReward, RankedProbabilityReward, SphericalReward
from rewards.scoring import (
    brier,
    class_indicator,
    kullback_leibler,
    logarithmic,
    ranked_probability,
    spherical,
)

GRID = np.linspace(0.0, 1.0, 1001)
BINARY_RULES = [brier, logarithmic, spherical, kullback_leibler]
BINARY_REWARDS = [BrierReward(), LogReward(), LogReward(0.05), SphericalReward(), KLReward(), KLReward(0.2)]


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        (brier(0.8, 1), 0.96),
        (brier(0.8, 0), 0.36),
        (brier(0.8, 0.5), 0.91),
        (brier(1, 0), 0.0),
        (logarithmic(0.8, 1), -0.2231435513142097),  # log 0.8
        (logarithmic(0.8, 0), -1.6094379124341003),  # log 0.2
        (logarithmic(0.8, 0.25), -1.2628643221541278),  # a quarter of the first, three of the second
        (logarithmic(0, 1), -6.907755278982137),  # log 0.001
        (logarithmic(1, 0), -6.907755278982137),
        (logarithmic(1, 1), -0.0010005003335835344),  # log 0.999
        (logarithmic(0, 1, 0.1), -2.3025850929940455),  # log 0.1
        (spherical(0.8, 1), 0.9701425001453319),  # 4 / √17
        (spherical(0.8, 0), 0.24253562503633297),  # 1 / √17
        (spherical(0.5, 1), 0.7071067811865475),
        (spherical(0, 1), 0.0),
        (kullback_leibler(0.5, 0.5), 0.0),
        (kullback_leibler(0.8, 1), -0.2231435513142097),
        (kullback_leibler(0.5, 0.25), -0.13081203594113697),  # log 2 minus the entropy of a quarter
        (kullback_leibler(0, 1), -6.907755278982137),
        (ranked_probability([0.2, 0.3, 0.5], 2), 0.855),  # 1 − (0.2² + 0.5²) / 2
        (ranked_probability([0.2, 0.3, 0.5], 0), 0.555),  # 1 − (0.8² + 0.5²) / 2
        (ranked_probability([0.2, 0.3, 0.5], [1, 1, 2]), 0.99875),  # 1 − 0.05² / 2
        (ranked_probability([1, 0, 0], 2), 0.0),
        (ranked_probability([0, 1, 0], 2), 0.5),  # a miss by one class costs half of a miss by two
        (ranked_probability([0, 0, 1], 2), 1.0),
    ],
)
def test_values_by_hand(score, expected):
    assert score == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("rule", BINARY_RULES)
def test_the_best_answer_to_votes_is_their_probability(rule):
    truth = np.linspace(0.0, 1.0, 101)
    expected = truth * rule(GRID[:, None], 1.0) + (1.0 - truth) * rule(GRID[:, None], 0.0)
    best = GRID[expected.argmax(axis=0)]
    inside = slice(None) if rule in (brier, spherical) else slice(1, -1)  # the others are flat beyond their clip
    np.testing.assert_allclose(best[inside], truth[inside], atol=1e-12)
    runner_up, winner = np.sort(expected, axis=0)[-2:]
    assert (winner - runner_up)[inside].min() > 1e-8  # strictly


@pytest.mark.parametrize("rule", BINARY_RULES)
def test_the_best_answer_to_a_vote_share_is_the_share(rule):
    share = np.linspace(0.01, 0.99, 99)
    best = GRID[rule(GRID[:, None], share).argmax(axis=0)]
    np.testing.assert_allclose(best, share, atol=1e-12)


@pytest.mark.parametrize("rule", BINARY_RULES)
def test_a_vote_share_scores_like_its_votes_up_to_a_constant(rule):
    share = 0.3
    from_votes = share * rule(GRID, 1.0) + (1.0 - share) * rule(GRID, 0.0)
    assert np.ptp(rule(GRID, share) - from_votes) < 1e-12


@pytest.mark.parametrize("truth", [(0.2, 0.3, 0.5), (0.6, 0.0, 0.4), (1.0, 0.0, 0.0), (0.35, 0.3, 0.35)])
def test_the_best_answer_to_ordered_classes_is_their_distribution(truth):
    steps = np.arange(101)
    first, second = (axis.ravel() for axis in np.meshgrid(steps, steps))
    fits = first + second <= 100
    simplex = np.stack([first, second, 100 - first - second], axis=-1)[fits] / 100
    expected = sum(mass * ranked_probability(simplex, label) for label, mass in enumerate(truth))
    np.testing.assert_allclose(simplex[expected.argmax()], truth, atol=1e-12)
    assert np.diff(np.sort(expected)[-2:]) > 1e-8


@pytest.mark.parametrize("rule", BINARY_RULES)
@given(p=st.floats(0, 1), y=st.floats(0, 1))
def test_scores_are_symmetric_in_the_responses(rule, p, y):
    assert rule(p, y) == pytest.approx(rule(1 - p, 1 - y), abs=1e-9)


@given(p=st.floats(0, 1), y=st.integers(0, 1))
def test_two_ordered_classes_give_the_brier_score(p, y):
    assert ranked_probability([1 - p, p], y) == pytest.approx(brier(p, y), abs=1e-12)


@pytest.mark.parametrize("rule", BINARY_RULES)
def test_a_grid_of_answers_broadcasts_against_a_batch_of_labels(rule):
    labels = np.array([0.0, 0.3, 1.0])
    table = rule(GRID[:, None], labels)
    assert table.shape == (1001, 3)
    assert table.dtype == np.float64
    assert np.isfinite(table).all()
    assert table[700, 1] == rule(GRID[700], 0.3)


def test_a_batch_of_classes_broadcasts():
    answers = np.array([[0.2, 0.3, 0.5], [1.0, 0.0, 0.0]])
    table = ranked_probability(answers[:, None], class_indicator(np.arange(3), 3))
    assert table.shape == (2, 3)
    assert table[0, 2] == ranked_probability(answers[0], 2)


@pytest.mark.parametrize("reward", BINARY_REWARDS, ids=repr)
def test_no_valid_answer_scores_less_than_an_invalid_one(reward):
    labels = np.linspace(0.0, 1.0, 201)
    worst = reward.score(GRID[:, None], labels).min(axis=0)
    invalid = reward.invalid_score(labels)
    assert invalid.shape == labels.shape
    assert (invalid <= worst).all()
    assert invalid[0] == worst[0]  # on a single vote, an invalid answer scores exactly as the worst valid one
    assert invalid[-1] == worst[-1]


@pytest.mark.parametrize("epsilon", [1e-3, 0.2])
def test_invalid_values_of_the_table(epsilon):
    labels = np.linspace(0.0, 1.0, 11)
    assert (BrierReward().invalid_score(labels) == 0).all()
    assert (SphericalReward().invalid_score(labels) == 0).all()
    assert (LogReward(epsilon).invalid_score(labels) == np.log(epsilon)).all()
    kl = KLReward(epsilon)
    np.testing.assert_array_equal(kl.invalid_score(labels), kl.score(GRID[:, None], labels).min(axis=0))


@given(
    votes=st.lists(st.integers(0, 9), min_size=4, max_size=4).filter(any),
    answer=st.lists(st.integers(0, 9), min_size=4, max_size=4).filter(any),
)
def test_ranked_probability_stays_in_the_unit_interval(votes, answer):
    reward = RankedProbabilityReward(4)
    score = reward.score(np.array(answer) / sum(answer), votes)
    assert reward.invalid_score(votes) == 0 <= score <= 1
