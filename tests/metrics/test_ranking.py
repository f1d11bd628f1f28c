import numpy as np
import pytest
from scipy.special import expit

from autorater.charm.elo import MEAN, SCALE, fit_elo
from autorater.data.pairs import Pair
from autorater.metrics import rank_systems

STRENGTHS = {"ada": 0.8, "bob": 0.3, "cyd": -0.2, "dan": -0.9}
NAMES = list(STRENGTHS)


def matches(n, seed=0, judge="useful"):
    """Judged probabilities, votes and names of n pairs; the biased judge favours dan."""
    generator = np.random.default_rng(seed)
    a = generator.integers(4, size=n)
    b = (a + generator.integers(1, 4, size=n)) % 4
    truth = np.array(list(STRENGTHS.values()))
    chance = expit(truth[b] - truth[a])
    votes = (generator.random(n) < chance).astype(float)
    judged = {
        "useful": 0.5 * votes + 0.5 * chance,
        "biased": 0.4 * votes + 0.4 * chance + 0.2 * (b == 3),
        "worthless": generator.random(n),
    }[judge]
    return judged, votes, [NAMES[i] for i in a], [NAMES[i] for i in b]


def test_with_all_votes_it_is_bradley_terry():
    judged, votes, names_a, names_b = matches(600)
    prompts = [f"prompt {i // 3}" for i in range(600)]
    rows = rank_systems(judged, votes, names_a, names_b, clusters=prompts)
    columns = zip(prompts, votes, names_a, names_b, strict=True)
    elo = fit_elo([Pair(str(i), p, "a", "b", y, 1, model_a=a, model_b=b) for i, (p, y, a, b) in enumerate(columns)])
    assert [row.system for row in rows] == list(elo)
    for row in rows:
        reference = elo[row.system]
        assert row.strength == pytest.approx((reference.elo - MEAN) / SCALE, abs=1e-4)
        assert row.high - row.low == pytest.approx((reference.high - reference.low) / SCALE, rel=0.02)


@pytest.mark.parametrize("judge", ["useful", "biased", "worthless"])
def test_the_judge_narrows_the_intervals_and_its_bias_cancels(judge):
    hits, ranked, ratio = [], [], []
    for seed in range(60):
        judged, votes, names_a, names_b = matches(1200, seed, judge)
        some = np.where(np.arange(1200) < 150, votes, np.nan)
        rows = rank_systems(judged, some, names_a, names_b)
        alone = rank_systems(judged[:150], votes[:150], names_a[:150], names_b[:150])
        hits += [row.low <= STRENGTHS[row.system] <= row.high for row in rows]
        ranked.append(all(row.rank_low <= 1 + NAMES.index(row.system) <= row.rank_high for row in rows))
        ratio.append(np.mean([row.high - row.low for row in rows]) / np.mean([row.high - row.low for row in alone]))
    assert np.mean(hits) >= 0.91
    assert np.mean(ranked) >= 0.93
    assert np.mean(ratio) <= {"useful": 0.65, "biased": 0.8, "worthless": 1.02}[judge]


def test_a_system_that_met_only_itself_is_left_out():
    judged, votes, a, b = matches(300)
    rows = rank_systems([*judged, 0.5], [*votes, 1.0], [*a, "eve"], [*b, "eve"])
    assert [row.system for row in rows] == [row.system for row in rank_systems(judged, votes, a, b)]


def test_win_rate_is_against_the_other_systems():
    rows = rank_systems(*matches(4000))
    for row in rows:
        others = [expit(row.strength - other.strength) for other in rows if other is not row]
        assert row.win_rate == pytest.approx(np.mean(others))
    assert sum(row.strength for row in rows) == pytest.approx(0, abs=1e-8)
    assert [row.rank for row in rows] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("judged", "votes", "a", "b", "message"),
    [
        ([0.5, 0.5], [1, 1], "aa", "bb", "no finite strengths fit, from 'b' to 'a'"),
        ([0.5] * 4, [1, 0, 1, 0], "aacc", "bbdd", "never compared"),
        ([0.5], [np.nan], "a", "b", "no vote"),
        ([0.5], [1], "a", "a", "no vote on a pair of two different"),
        ([0.5], [1.5], "a", "b", r"votes\[0\] is 1.5"),
        ([0.5, 0.5], [1, 0], "a", "bb", "1 and 2 systems for 2 pairs"),
    ],
)
def test_bad_input_is_refused(judged, votes, a, b, message):
    with pytest.raises(ValueError, match=message):
        rank_systems(judged, votes, a, b)


def test_votes_on_one_prompt_are_refused():
    with pytest.raises(ValueError, match="single cluster"):
        rank_systems([0.4, 0.6, 0.5], [1, 0, np.nan], "aab", "bba", clusters=[0, 0, 0])
