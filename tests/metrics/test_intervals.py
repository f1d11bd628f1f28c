import tracemalloc

import numpy as np
import pytest
from scipy.stats import binomtest, norm, t
from scipy.stats import bootstrap as scipy_bootstrap

from autorater.metrics import BinnedGap, Mean, Share, bootstrap, intervals
from autorater.metrics.clusters import effective_number
from autorater.metrics.intervals import _half_width, wilson_interval


def test_width_of_a_mean_is_that_of_the_normal_interval():
    values = np.random.default_rng(0).normal(size=2000)
    interval = bootstrap({"mean": Mean(values)}, n_rounds=4000)
    half = 1.96 * values.std() / np.sqrt(values.size)
    assert interval["mean_low"] == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert interval["mean_high"] == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_half_widths_are_those_of_students_t():
    assert _half_width(1.4) == _half_width(2)
    for n in (2, 2.5, 3, 4, 8, 20, 400):
        assert _half_width(n) == pytest.approx(t.ppf(0.975, n - 1) * np.sqrt(n / (n - 1)), rel=1e-9)


def test_large_units_count_for_more():
    assert effective_number(np.ones(30)) == pytest.approx(30)
    assert effective_number(np.r_[np.ones(30), np.zeros(9)]) == pytest.approx(30), "those that do not count"
    assert effective_number(np.array([10.0, 1, 1, 1, 1])) == pytest.approx(196 / 104)
    assert effective_number(np.array([3.0, 1, 1, 1])) == pytest.approx(3)


def test_a_mean_has_the_bca_interval_of_scipy():
    """At 10,000 values the levels are not expanded any more."""
    values = np.random.default_rng(0).lognormal(0, 1.5, 10_000)
    interval = bootstrap({"m": Mean(values)}, 4000)
    expected = scipy_bootstrap((values,), np.mean, n_resamples=4000, method="BCa", batch=100, rng=1)
    low, high = expected.confidence_interval
    width = high - low
    assert [interval["m_low"], interval["m_high"]] == pytest.approx([low, high], abs=0.05 * width)
    percentiles = scipy_bootstrap((values,), np.mean, n_resamples=2000, method="percentile", batch=100, rng=1)
    assert interval["m_high"] > percentiles.confidence_interval.high + 0.02 * width, "skewness moves the ends up"


def slow_bca(values, weights, draws):
    """Efron's formulas with a jackknife that leaves out one pair at a time."""
    estimate = values.sum() / weights.sum()
    resampled = [values[draw].sum() / weights[draw].sum() for draw in draws if weights[draw].any()]
    left_out = np.array([(values.sum() - v) / (weights.sum() - w) for v, w in zip(values, weights, strict=True)])
    pull = left_out.mean() - left_out
    acceleration = (pull**3).sum() / (6 * (pull**2).sum() ** 1.5)
    bias = norm.ppf(np.mean(resampled < estimate) + np.mean(resampled == estimate) / 2)
    z = t.ppf([0.025, 0.975], len(values) - 1) * np.sqrt(len(values) / (len(values) - 1))
    return np.quantile(resampled, norm.cdf(bias + (bias + z) / (1 - acceleration * (bias + z))))


def test_against_resampling_by_index():
    """The same draws, each resample taken apart and measured the slow way."""
    generator = np.random.default_rng(7)
    values, weights = generator.random(30) ** 3, generator.integers(0, 2, 30) * 1.0
    fast = bootstrap({"mean": Mean(values), "ratio": Mean(values * weights, weights)}, 500, seed=3)
    draws = np.random.default_rng(3).integers(30, size=(500, 30))
    slow_mean, slow_ratio = slow_bca(values, np.ones(30), draws), slow_bca(values * weights, weights, draws)
    # The jackknife of a ratio is its influence function up to a term of 1/n.
    assert [fast["mean_low"], fast["mean_high"]] == pytest.approx(slow_mean, abs=1e-6)
    assert [fast["ratio_low"], fast["ratio_high"]] == pytest.approx(slow_ratio, abs=0.01)


def test_a_calibration_error_against_a_scan_of_scales():
    """The interval holds the scales at which the estimate lies between the quantiles of gaps and noise."""
    gaps = np.random.default_rng(7).normal(0.3, 1, size=(400, 4))
    interval = bootstrap({"gap": BinnedGap(gaps)}, 500, seed=3)
    draws = np.random.default_rng(3).integers(400, size=(500, 400))
    mean = gaps.mean(axis=0)
    estimate = np.abs(mean).sum()
    noise = np.array([gaps[draw].mean(axis=0) - mean for draw in draws])
    scales = np.arange(0, 2, 0.001)
    tails = np.array([np.quantile(np.abs(s * mean + noise).sum(axis=1), [0.025, 0.975]) for s in scales])
    held = scales[(tails[:, 0] <= estimate) & (estimate <= tails[:, 1])]
    assert [interval["gap_low"], interval["gap_high"]] == pytest.approx(held[[0, -1]] * estimate, abs=0.01 * estimate)
    assert 0 < interval["gap_low"] < estimate < interval["gap_high"]


def test_shares_have_wilsons_interval():
    from scipy.stats import binomtest

    hits = np.repeat([1.0, 0.0], [370, 30])
    expected = binomtest(370, 400).proportion_ci(method="wilson")
    interval = bootstrap({"m": Share(hits)})
    assert [interval["m_low"], interval["m_high"]] == pytest.approx([expected.low, expected.high], abs=5e-4)
    all_hits = bootstrap({"m": Share(np.ones(50))})
    expected = binomtest(50, 50).proportion_ci(method="wilson")
    assert [all_hits["m_low"], all_hits["m_high"]] == pytest.approx([expected.low, 1], abs=5e-3)
    copies = bootstrap({"m": Share(np.repeat(hits, 9))}, clusters=np.repeat(np.arange(400), 9))
    assert copies == pytest.approx(interval)
    always_half = bootstrap({"m": Share(np.full(50, 0.5))})
    assert always_half == {"m_low": 0.5, "m_high": 0.5}
    assert bootstrap({"m": Share(np.zeros(3), np.zeros(3))}) == {}


@pytest.mark.parametrize("clustered", [False, True])
def test_dealing_many_units_into_hands_changes_no_width(monkeypatch, clustered):
    generator = np.random.default_rng(0)
    values = generator.lognormal(size=20_000) if not clustered else np.repeat(generator.lognormal(size=5000), 4)
    clusters = np.repeat(np.arange(5000), 4) if clustered else None
    gaps = np.stack([values - 1.2, 0.4 - generator.random(20_000)], axis=1)
    statistics = {"m": Mean(values), "r": Mean(values**2, values), "gap": BinnedGap(gaps)}
    plain = bootstrap(statistics, 2000, clusters=clusters)
    monkeypatch.setattr(intervals, "_MAX_UNITS", 1000)
    dealt = bootstrap(statistics, 2000, clusters=clusters)
    for name in statistics:
        width = plain[f"{name}_high"] - plain[f"{name}_low"]
        for end in ("low", "high"):
            assert dealt[f"{name}_{end}"] == pytest.approx(plain[f"{name}_{end}"], abs=0.08 * width), name


def test_rounds_do_not_depend_on_the_chunk(monkeypatch):
    values = np.random.default_rng(0).random(50)
    whole = bootstrap({"m": Mean(values)}, 100)
    monkeypatch.setattr("autorater.metrics.intervals._CHUNK", 130)
    assert bootstrap({"m": Mean(values)}, 100) == pytest.approx(whole)


def coverage(draw, truth, n_experiments):
    hits = 0
    for seed in range(n_experiments):
        statistic, clusters = draw(np.random.default_rng(seed))
        interval = bootstrap({"m": statistic}, 200, seed, clusters)
        hits += interval["m_low"] <= truth <= interval["m_high"]
    return hits / n_experiments


def clustered(generator):
    """Forty groups of five with a shared value each."""
    return Mean(np.repeat(generator.normal(size=40), 5) + 0.3 * generator.normal(size=200)), np.repeat(range(40), 5)


def test_coverage_of_a_mean():
    assert 0.9 < coverage(lambda generator: (Mean(generator.random(100)), None), 0.5, 300) <= 0.99


def test_clusters_are_resampled_whole():
    assert 0.88 < coverage(clustered, 0, 300) <= 0.99
    assert coverage(lambda generator: (clustered(generator)[0], None), 0, 300) < 0.75


def test_coverage_of_a_calibration_error():
    """All truths 0.7: perfect at 0.7 (true error 0), overconfident at 0.8 (true error 0.1)."""

    def draw(answer):
        return lambda generator: (BinnedGap(((generator.random(500) < 0.7) - answer)[:, None]), None)

    assert coverage(draw(0.8), 0.1, 600) == pytest.approx(0.95, abs=0.03)
    assert coverage(draw(0.7), 0.0, 600) == pytest.approx(0.95, abs=0.03)


def test_the_interval_of_a_calibration_error_holds_the_estimate():
    for seed in range(20):
        gaps = np.random.default_rng(seed).normal(size=(50, 10))
        interval = bootstrap({"ece": BinnedGap(gaps)}, 100, seed)
        estimate = np.abs(gaps.mean(axis=0)).sum()
        assert 0 <= interval["ece_low"] <= estimate + 1e-12
        assert estimate <= interval["ece_high"] + 1e-12


@pytest.mark.parametrize("sizes", [[500] + [5] * 20, [100] + [5] * 10, [50] + [5] * 4, [200, 1]])
def test_one_cluster_with_most_of_the_weight_gives_no_narrow_interval(sizes):
    clusters = np.repeat(np.arange(len(sizes)), sizes)
    for seed in range(10):
        rng = np.random.default_rng(seed)
        values = rng.normal(0, 1, len(sizes))[clusters] + rng.normal(0, 0.1, clusters.size)
        interval = bootstrap({"m": Mean(values)}, 500, clusters=clusters)
        assert interval["m_low"] <= values.mean() <= interval["m_high"]
        assert interval["m_high"] - interval["m_low"] > 0.05


def test_units_of_weight_0_do_not_make_an_interval_undefined():
    gaps, weights = np.zeros((6, 2)), np.array([1.0, 1, 0, 0, 0, 0])
    gaps[:2, 0] = (0.3, -0.2)
    interval = bootstrap({"ece": BinnedGap(gaps, weights)}, 500)
    assert np.isfinite([interval["ece_low"], interval["ece_high"]]).all()
    assert interval["ece_low"] <= 0.05 + 1e-9
    assert interval["ece_high"] >= 0.05 - 1e-9


def test_clusters_may_be_strings_in_any_order():
    values = np.array([1.0, 2.0, 3.0, 4.0])
    by_name = bootstrap({"m": Mean(values)}, 50, clusters=["x", "y", "x", "y"])
    by_number = bootstrap({"m": Mean(values)}, 50, clusters=[0, 1, 0, 1])
    assert by_name == by_number
    assert {by_name["m_low"], by_name["m_high"]} <= {2.0, 2.5, 3.0}


def test_one_unit_gives_no_interval():
    assert bootstrap({"m": Mean(np.array([0.3]))}) == {}
    assert bootstrap({"m": Mean(np.arange(4.0))}, clusters=[1, 1, 1, 1]) == {}
    assert bootstrap({}) == {}


def test_resamples_without_weight_do_not_count():
    one_counts = Mean(np.array([0.7, 0, 0]), np.array([1.0, 0, 0]))
    assert bootstrap({"m": one_counts}) == pytest.approx({"m_low": 0.7, "m_high": 0.7})
    assert bootstrap({"m": Share(*one_counts.columns.T)}) == pytest.approx({"m_low": 0.7, "m_high": 0.7})
    assert bootstrap({"m": Mean(np.zeros(3), np.zeros(3))}) == {}


def test_memory_is_bounded():
    values = np.random.default_rng(0).random(200_000)
    tracemalloc.start()
    bootstrap({"m": Mean(values)}, n_rounds=60)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200e6  # all counts at once would be 96 MB three times over


def test_errors():
    with pytest.raises(ValueError, match="n_rounds is 0"):
        bootstrap({"m": Mean(np.ones(2))}, 0)
    with pytest.raises(ValueError, match="b has length 3 and a has length 2"):
        bootstrap({"a": Mean(np.ones(2)), "b": Mean(np.ones(3))})
    with pytest.raises(ValueError, match="m has length 2 and clusters has length 3"):
        bootstrap({"m": Mean(np.ones(2))}, clusters=[1, 2, 3])


@pytest.mark.parametrize(("hits", "n"), [(0, 7), (3, 10), (644, 734), (20, 20)])
def test_wilson_interval_solves_the_score_equation(hits, n):
    """Wilson's bounds are the p that a normal test just rejects."""
    for bound in wilson_interval(hits / n, n):
        if 0 < bound < 1:
            assert abs(hits / n - bound) / np.sqrt(bound * (1 - bound) / n) == pytest.approx(1.959964, rel=1e-6)


def test_wilson_interval_against_scipy():
    expected = binomtest(644, 734).proportion_ci(method="wilson")
    assert wilson_interval(644 / 734, 734) == pytest.approx((expected.low, expected.high), rel=1e-6)


def test_a_unanimous_sample_has_a_wilson_interval_with_a_width():
    low, high = wilson_interval(1.0, 20)
    assert high == 1
    assert low == pytest.approx(0.8389, abs=1e-4)
