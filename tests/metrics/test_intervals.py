import tracemalloc

import numpy as np
import pytest

from autorater.metrics import BinnedGap, Mean, bootstrap


def test_width_of_a_mean_is_that_of_the_normal_interval():
    values = np.random.default_rng(0).normal(size=2000)
    interval = bootstrap({"mean": Mean(values)}, n_rounds=4000)
    half = 1.96 * values.std() / np.sqrt(values.size)
    assert interval["mean_low"] == pytest.approx(values.mean() - half, abs=0.06 * half)
    assert interval["mean_high"] == pytest.approx(values.mean() + half, abs=0.06 * half)


def test_level_sets_the_width():
    values = np.random.default_rng(0).normal(size=2000)
    wide = bootstrap({"m": Mean(values)}, n_rounds=4000, level=0.99)
    narrow = bootstrap({"m": Mean(values)}, n_rounds=4000, level=0.5)
    assert (wide["m_high"] - wide["m_low"]) / (narrow["m_high"] - narrow["m_low"]) == pytest.approx(3.82, rel=0.08)


def test_against_resampling_by_index():
    """The same draws, each resample taken apart and measured the slow way."""
    generator = np.random.default_rng(7)
    values, weights, gaps = generator.random(30), generator.integers(0, 2, 30) * 1.0, generator.normal(size=(30, 4))
    fast = bootstrap(
        {"mean": Mean(values), "ratio": Mean(values * weights, weights), "gap": BinnedGap(gaps)}, 200, seed=3
    )
    draws = np.random.default_rng(3).integers(30, size=(200, 30))
    slow_mean = [values[draw].mean() for draw in draws]
    slow_ratio = [values[draw][weights[draw] > 0].mean() for draw in draws]
    slow_gap = np.quantile([np.abs(gaps[draw].mean(axis=0)).sum() for draw in draws], [0.025, 0.975])
    assert [fast["mean_low"], fast["mean_high"]] == pytest.approx(np.quantile(slow_mean, [0.025, 0.975]))
    assert [fast["ratio_low"], fast["ratio_high"]] == pytest.approx(np.quantile(slow_ratio, [0.025, 0.975]))
    estimate = np.abs(gaps.mean(axis=0)).sum()
    assert fast["gap_low"] == pytest.approx(max(0, min(estimate, 2 * estimate - slow_gap[1])))
    assert fast["gap_high"] == pytest.approx(max(estimate, 2 * estimate - slow_gap[0]))


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
    assert coverage(draw(0.7), 0.0, 600) > 0.85


def test_the_interval_of_a_calibration_error_holds_the_estimate():
    for seed in range(20):
        gaps = np.random.default_rng(seed).normal(size=(50, 10))
        interval = bootstrap({"ece": BinnedGap(gaps)}, 100, seed)
        estimate = np.abs(gaps.mean(axis=0)).sum()
        assert 0 <= interval["ece_low"] <= estimate + 1e-12
        assert estimate <= interval["ece_high"] + 1e-12


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
    with pytest.raises(ValueError, match=r"level is 1\.0; a value in \(0, 1\)"):
        bootstrap({"m": Mean(np.ones(2))}, level=1.0)
    with pytest.raises(ValueError, match="b has length 3 and a has length 2"):
        bootstrap({"a": Mean(np.ones(2)), "b": Mean(np.ones(3))})
    with pytest.raises(ValueError, match="m has length 2 and clusters has length 3"):
        bootstrap({"m": Mean(np.ones(2))}, clusters=[1, 2, 3])
