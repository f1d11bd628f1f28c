import math

import numpy as np
import pytest
import win_rates as benchmark
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t as student

from autorater.metrics import estimate_win_rate, votes_for_width, votes_only_win_rate
from autorater.metrics.win_rate import MAX_WIDTH


def study(n_judged=2000, n_votes=100, seed=0, quality=1.0):
    """Judged, judged_voted and votes of a judge that is calibrated for quality 1 and worthless for 0."""
    generator = np.random.default_rng(seed)
    truth = 1 / (1 + np.exp(-0.4 - 1.5 * generator.normal(size=n_judged + n_votes)))
    votes = (generator.random(truth.size) < truth).astype(float)
    judged = quality * truth + (1 - quality) * generator.random(truth.size)
    return judged[n_votes:], judged[:n_votes], votes[:n_votes]


def width(rate, name=""):
    return rate[f"{name}high"] - rate[f"{name}low"]


def test_value_is_that_of_ppi_plus_plus():
    judged, judged_voted, votes = study()
    rate = estimate_win_rate(judged, judged_voted, votes)
    covariance = np.cov(votes, judged_voted)
    weight = covariance[0, 1] / covariance[1, 1] / (1 + votes.size / judged.size)
    assert rate["lambda"] == pytest.approx(weight)
    assert rate["value"] == pytest.approx(votes.mean() + weight * (judged.mean() - judged_voted.mean()))
    assert rate["method"] == "PPI++"


def test_interval_is_that_of_ppi_plus_plus_for_many_votes():
    judged, judged_voted, votes = study(50_000, 5_000)
    rate = estimate_win_rate(judged, judged_voted, votes)
    variance = (votes - rate["lambda"] * judged_voted).var() / votes.size + (
        rate["lambda"] * judged
    ).var() / judged.size
    half = 1.959964 * math.sqrt(variance)
    assert rate["low"] == pytest.approx(rate["value"] - half, abs=0.01 * half)
    assert rate["high"] == pytest.approx(rate["value"] + half, abs=0.01 * half)
    alone = votes.mean()
    assert rate["votes_gained"] == pytest.approx(alone * (1 - alone) / variance - votes.size, rel=0.03)


def test_against_the_authors_library():
    ppi_py = pytest.importorskip("ppi_py", reason="ppi-python is not installed")
    judged, judged_voted, votes = study(50_000, 5_000)
    rate = estimate_win_rate(judged, judged_voted, votes)
    low, high = (float(end[0]) for end in ppi_py.ppi_mean_ci(votes, judged_voted, judged, alpha=0.05))
    assert (rate["low"], rate["high"]) == pytest.approx((low, high), abs=0.01 * (high - low))
    weight = rate["lambda"]
    value = ppi_py.ppi_mean_pointestimate(votes, judged_voted, judged, lam=weight)
    assert rate["value"] == pytest.approx(float(value[0]))


def test_standard_error_is_that_of_the_jackknife():
    """With all that is not obvious: an estimated λ, dependent pairs, prompts in both samples."""
    judged, judged_voted, votes = study(400, 200, seed=3)
    prompts = np.random.default_rng(0).integers(80, size=600)
    clusters = prompts[:400], prompts[400:]
    rate = estimate_win_rate(judged, judged_voted, votes, clusters=clusters)
    left_out = [
        estimate_win_rate(judged[clusters[0] != c], judged_voted[clusters[1] != c], votes[clusters[1] != c])["value"]
        for c in range(80)
    ]
    error = math.sqrt(79 / 80 * ((np.array(left_out) - np.mean(left_out)) ** 2).sum())
    # 5 %: the degrees of freedom, and the factor n − 1 against n
    assert width(rate) / 2 == pytest.approx(student.ppf(0.975, 76) * error, rel=0.05)


def test_an_estimated_weight_costs_more_where_the_sample_was_unlucky():
    """The judge's answers are skewed, its errors grow with them, and the pairs with votes have lower answers."""
    generator = np.random.default_rng(0)
    answers = generator.random(400) ** 3
    votes = np.clip(answers * (0.5 + generator.random(400)), 0, 1)
    judged = np.full(5_000, answers.mean() + 0.3)
    rate = estimate_win_rate(judged, answers, votes)
    left_out = [estimate_win_rate(judged, np.delete(answers, i), np.delete(votes, i))["value"] for i in range(400)]
    error = math.sqrt(399 / 400 * ((np.array(left_out) - np.mean(left_out)) ** 2).sum())
    assert width(rate) / 2 == pytest.approx(1.97 * error, rel=0.06)


def test_votes_alone_are_wilsons_interval_with_students_quantile():
    votes = np.repeat([0.0, 1.0], [20, 30])
    rate = estimate_win_rate([0.5, 0.4], votes * 0, votes)
    z, n = student.ppf(0.975, 49), 49
    middle, half = (
        (0.6 + z**2 / (2 * n)) / (1 + z**2 / n),
        z * math.sqrt(0.24 / n + z**2 / (4 * n**2)) / (1 + z**2 / n),
    )
    for name in ("votes_only_", ""):
        assert (rate[f"{name}low"], rate[f"{name}high"]) == pytest.approx((middle - half, middle + half))
    assert (rate["method"], rate["lambda"], rate["votes_gained"]) == ("votes alone", 0, 0)


def test_repeated_votes_count_once_when_clustered():
    judged, judged_voted, votes = study(500, 60)
    once = estimate_win_rate(judged, judged_voted, votes)
    twice = (np.repeat(values, 2) for values in (judged, judged_voted, votes))
    clusters = np.repeat(np.arange(500), 2), np.repeat(np.arange(500, 560), 2)
    clustered = estimate_win_rate(*twice, clusters=clusters)
    assert clustered["n_clusters"] == 60
    assert width(clustered, "votes_only_") == pytest.approx(width(once, "votes_only_"))
    assert width(clustered) == pytest.approx(width(once), rel=0.02)


def test_clusters_in_every_form():
    judged, judged_voted, votes = study(300, 60)
    others, voted = np.arange(300) // 3, np.array([f"prompt {i // 2}" for i in range(60)])
    of_voted = estimate_win_rate(judged, judged_voted, votes, clusters=voted)
    apart = [f"other {i}" for i in range(300)]
    assert estimate_win_rate(judged, judged_voted, votes, clusters=(apart, voted)) == pytest.approx(of_voted)
    assert estimate_win_rate(judged, judged_voted, votes, clusters=[*apart, *voted]) == pytest.approx(of_voted)
    assert estimate_win_rate(judged, judged_voted, votes, clusters=np.arange(60)) == pytest.approx(
        estimate_win_rate(judged, judged_voted, votes)
    )
    with pytest.raises(ValueError, match=r"shape \(59,\); expected \(360,\)"):
        estimate_win_rate(judged, judged_voted, votes, clusters=voted[1:])
    with pytest.raises(ValueError, match=r"shapes \(60,\) and \(300,\)"):
        estimate_win_rate(judged, judged_voted, votes, clusters=(voted, others))


def test_rogan_gladen_by_hand():
    """Sensitivity 0.8, specificity 0.9, 45 % of the verdicts are wins: (0.45 + 0.9 − 1) / (0.8 + 0.9 − 1)."""
    votes = np.repeat([1.0, 0.0], 50)
    judged_voted = np.repeat([0.9, 0.2, 0.7, 0.1], [40, 10, 5, 45])
    rate = estimate_win_rate(np.repeat([0.8, 0.3], [450, 550]), judged_voted, votes)
    assert rate["rogan_gladen_value"] == pytest.approx(0.5)
    assert rate["rogan_gladen_low"] < 0.5 < rate["rogan_gladen_high"]
    useless = estimate_win_rate(np.repeat([0.8, 0.3], [450, 550]), np.tile([0.9, 0.1], 50), votes)
    assert [useless[f"rogan_gladen_{end}"] for end in ("value", "low", "high")] == [None, 0, 1]


def test_judge_alone_is_the_mean_over_all_pairs():
    judged, judged_voted, votes = study()
    rate = estimate_win_rate(judged, judged_voted, votes)
    answers = np.concatenate([judged, judged_voted])
    half = student.ppf(0.975, answers.size - 1) * answers.std(ddof=1) / math.sqrt(answers.size)
    assert rate["judge_only_value"] == pytest.approx(answers.mean())
    assert width(rate, "judge_only_") == pytest.approx(2 * half)


@pytest.mark.parametrize("votes", [[1.0] * 50, [0.0] * 50, [0.5] * 50])
def test_equal_votes_leave_doubt(votes):
    rate = estimate_win_rate(np.linspace(0, 1, 500), np.linspace(0, 1, 50), votes)
    assert rate["low"] <= votes[0] <= rate["high"]
    assert width(rate) > 0.05


def test_a_judge_that_agreed_with_every_vote_may_still_err():
    votes = np.repeat([0.0, 1.0], 25)
    rate = estimate_win_rate(np.repeat([0.0, 1.0], [4000, 6000]), votes, votes)
    assert width(rate) >= 2 * 3.68 / 50  # a rate of errors of 3.68 / 50 goes unnoticed one time in 40


@pytest.mark.parametrize(("n_votes", "clusters"), [(1, None), (6, np.zeros(6))])
def test_a_single_cluster_bounds_nothing(n_votes, clusters):
    votes = np.arange(n_votes) % 2
    rate = estimate_win_rate([0.5, 0.6], [0.5] * n_votes, votes, clusters=clusters)
    assert (rate["low"], rate["high"], rate["value"]) == (0, 1, votes.mean())


answers = st.one_of(st.sampled_from([0.0, 0.5, 1.0]), st.floats(0, 1))
voted = st.lists(st.tuples(answers, st.sampled_from([0.0, 0.5, 1.0]), st.integers(0, 9)), min_size=1, max_size=40)


@settings(max_examples=200, deadline=None)
@given(st.lists(answers, min_size=1, max_size=60), voted, st.booleans())
def test_never_wider_than_allowed_and_the_other_side_is_the_complement(judged, pairs, clustered):
    judged_voted, votes, prompts = (np.array(column) for column in zip(*pairs, strict=True))
    clusters = prompts if clustered else None
    rate = estimate_win_rate(judged, judged_voted, votes, clusters=clusters)
    for name in ("", "votes_only_", "judge_only_"):
        assert 0 <= rate[f"{name}low"] <= rate[f"{name}value"] <= rate[f"{name}high"] <= 1
    assert width(rate) <= MAX_WIDTH * width(rate, "votes_only_") + 1e-12
    other = estimate_win_rate(1 - np.array(judged), 1 - judged_voted, 1 - votes, clusters=clusters)
    if other["method"] == rate["method"]:  # at the limit rounding decides
        assert [other["low"], other["high"]] == pytest.approx([1 - rate["high"], 1 - rate["low"]], abs=1e-7)


def test_more_votes_for_a_width():
    judged, judged_voted, votes = study(5000, 100)
    rate = estimate_win_rate(judged, judged_voted, votes)
    assert votes_for_width(judged, judged_voted, votes, width(rate)) == 0
    more = votes_for_width(judged, judged_voted, votes, width(rate) / 2)
    assert 280 <= more <= 340, "four times the votes, and a little more because fewer judged pairs are left"
    widths = []
    for seed in range(20):
        larger = study(5000 - more, 100 + more, seed=seed)
        widths.append(width(estimate_win_rate(*larger)))
    assert np.mean(widths) == pytest.approx(width(rate) / 2, rel=0.1)


def test_more_votes_than_judged_pairs_are_votes_alone():
    judged, judged_voted, votes = study(50, 100)
    n = 100 + votes_for_width(judged, judged_voted, votes, 0.02)
    rate = estimate_win_rate(judged, judged_voted, votes)
    assert n == pytest.approx(100 * (width(rate, "votes_only_") / 0.02) ** 2, abs=1)
    with pytest.raises(ValueError, match="width is 0"):
        votes_for_width(judged, judged_voted, votes, 0)


@pytest.mark.parametrize(
    ("judged", "judged_voted", "votes", "confidence", "message"),
    [
        ([], [0.5], [1], 0.95, "judged is empty"),
        ([0.5], [0.5, 0.4], [1], 0.95, "judged_voted has length 2 and votes has length 1|votes has length 1"),
        ([0.5], [0.5], [2], 0.95, r"votes\[0\] is 2"),
        ([0.5], [math.nan], [1], 0.95, "NaN"),
        ([0.5], [0.5], [1], 95, "confidence is 95"),
    ],
)
def test_bad_input_is_refused(judged, judged_voted, votes, confidence, message):
    with pytest.raises(ValueError, match=message):
        estimate_win_rate(judged, judged_voted, votes, confidence=confidence)


@pytest.mark.parametrize("judge", benchmark.JUDGES)
def test_coverage_in_a_few_studies(judge):
    record = benchmark.simulated_studies(judge, 50, True, n_judged=500, n_studies=100)
    assert record["coverage"] >= 0.88
    assert record["widest"] <= MAX_WIDTH + 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("clustered", [False, True])
@pytest.mark.parametrize("n_votes", [50, 200, 500])
@pytest.mark.parametrize("judge", benchmark.JUDGES)
def test_coverage_and_width(judge, n_votes, clustered):
    record = benchmark.simulated_studies(judge, n_votes, clustered)
    print(record)
    assert 0.93 <= record["coverage"] <= 0.97
    assert record["widest"] <= MAX_WIDTH + 1e-12
    if judge == "calibrated":
        assert record["votes_gained"] >= 0.3 * n_votes


def test_where_all_pairs_have_votes_the_judge_adds_nothing():
    rng = np.random.default_rng(0)
    votes, judged = rng.integers(0, 2, 60).astype(float), rng.random(60)
    clusters = np.arange(60) // 2
    alone = votes_only_win_rate(judged, votes, clusters=clusters)
    beside = estimate_win_rate(rng.random(500), judged, votes, clusters=clusters)
    for key in ("value", "low", "high"):
        assert alone[key] == alone[f"votes_only_{key}"] == pytest.approx(beside[f"votes_only_{key}"])
    assert alone["judge_only_value"] == pytest.approx(judged.mean())
    assert set(alone) == set(beside)
    with pytest.raises(ValueError, match="clusters"):
        votes_only_win_rate(judged, votes, clusters=clusters[:5])
