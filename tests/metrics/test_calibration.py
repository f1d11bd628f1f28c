import doctest
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, log_loss

from autorater.metrics import (
    calibration,
    calibration_metrics,
    ece_noise_floor,
    expected_calibration_error,
    reliability_curve,
)
from autorater.metrics.binning import bin_indices
from autorater.metrics.calibration import _debiased_square, _decomposition

hundredths = st.integers(0, 100).map(lambda k: k / 100)
shares = st.sampled_from([0.0, 0.5, 1.0, 1 / 3, 2 / 3, 0.1, 0.7])
rows = st.lists(st.tuples(hundredths, shares), min_size=1, max_size=60).map(lambda pairs: np.array(pairs).T)


def sample(n, seed=0, votes=1):
    generator = np.random.default_rng(seed)
    truth = generator.beta(0.8, 0.8, n).round(2)
    return truth, generator.binomial(votes, truth) / votes, generator


def test_scores_agree_with_scikit_learn_on_single_votes():
    probabilities, labels, _ = sample(500)
    report = calibration_metrics(probabilities, labels)
    assert report["brier"] == pytest.approx(brier_score_loss(labels, probabilities), abs=1e-12)
    clipped = probabilities.clip(1e-3, 1 - 1e-3)
    assert report["log_loss"] == pytest.approx(log_loss(labels, clipped), abs=1e-12)
    assert report["mse_dense"] == report["brier"]


def test_scores_of_dense_labels_are_those_of_the_votes_written_out():
    probabilities, labels, _ = sample(300, votes=4)
    report = calibration_metrics(probabilities, labels)
    for_b = (labels * 4).round().astype(int)
    votes = np.concatenate([[1] * k + [0] * (4 - k) for k in for_b])
    repeated = probabilities.repeat(4)
    assert report["brier"] == pytest.approx(brier_score_loss(votes, repeated), abs=1e-12)
    assert report["log_loss"] == pytest.approx(log_loss(votes, repeated.clip(1e-3, 1 - 1e-3)), abs=1e-12)
    assert report["mse_dense"] == pytest.approx(np.mean((probabilities - labels) ** 2), abs=1e-15)


def test_a_tie_is_half_a_vote_each_way():
    tie = calibration_metrics([0.8, 0.8], [0.5, 0.5])
    split = calibration_metrics([0.8, 0.8], [0, 1])
    for key in ("brier", "log_loss", "ece", "reliability", "resolution", "uncertainty"):
        assert tie[key] == pytest.approx(split[key], abs=1e-15)


def test_extreme_answers_cost_a_finite_log_loss():
    assert calibration_metrics([0, 1], [1, 0])["log_loss"] == pytest.approx(-np.log(1e-3))


@given(rows)
def test_decomposition_is_exact(data):
    report = calibration_metrics(*data)
    assert report["reliability"] - report["resolution"] + report["uncertainty"] == pytest.approx(
        report["brier"], abs=1e-12
    )


@given(rows)
def test_reliability_and_resolution_against_a_loop(data):
    probabilities, labels = data
    reliability = resolution = 0.0
    for value in set(probabilities):
        here = labels[probabilities == value]
        reliability += len(here) / len(labels) * (value - here.mean()) ** 2
        resolution += len(here) / len(labels) * (here.mean() - labels.mean()) ** 2
    report = calibration_metrics(probabilities, labels)
    assert report["reliability"] == pytest.approx(reliability, abs=1e-12)
    assert report["resolution"] == pytest.approx(resolution, abs=1e-12)


def brute_force_ece(probabilities, labels, n_bins):
    total = 0.0
    for k in range(1, n_bins + 1):
        inside = [
            (p, y)
            for p, y in zip(probabilities, labels, strict=True)
            if (round(p * 100) * n_bins > (k - 1) * 100 or k == 1) and round(p * 100) * n_bins <= k * 100
        ]
        if inside:
            total += abs(sum(y - p for p, y in inside))
    return total / len(labels)


@given(rows, st.sampled_from([1, 2, 3, 7, 10, 15, 20]))
def test_ece_against_a_loop_over_integer_edges(data, n_bins):
    assert expected_calibration_error(*data, n_bins=n_bins) == pytest.approx(brute_force_ece(*data, n_bins), abs=1e-12)


def test_ece_by_hand():
    probabilities, labels = [0.1, 0.1, 0.3, 0.3, 0.9, 1.0], [0, 1, 0, 1, 1, 1]
    # (0, .1]: |.5 − .1| · 2/6; (.2, .3]: |.5 − .3| · 2/6; (.8, .9]: .1/6; (.9, 1]: 0
    assert expected_calibration_error(probabilities, labels) == pytest.approx((0.8 + 0.4 + 0.1) / 6)
    # two bins of three: {.1, .1, .3, .3}, since ties stay together, and {.9, 1.}
    quantile = expected_calibration_error(probabilities, labels, n_bins=2, strategy="quantile")
    assert quantile == pytest.approx((1.2 + 0.1) / 6)
    assert expected_calibration_error(probabilities, labels, strategy="distinct") == pytest.approx(1.3 / 6)
    assert expected_calibration_error(probabilities, labels, n_bins=1) == pytest.approx(1.3 / 6)


def test_the_example_in_the_docstring():
    results = doctest.testmod(calibration)
    assert results.attempted > 0
    assert results.failed == 0


@pytest.mark.parametrize("strategy", ["uniform", "quantile", "distinct"])
def test_ece_is_the_weighted_gap_of_the_curve(strategy):
    probabilities, labels, _ = sample(400, seed=3)
    curve = reliability_curve(probabilities, labels, 10, strategy)
    assert curve["count"].sum() == 400
    assert (curve["count"] > 0).all()
    assert (np.diff(curve["probability"]) > 0).all()
    gap = np.sum(curve["count"] * np.abs(curve["label"] - curve["probability"])) / 400
    assert expected_calibration_error(probabilities, labels, 10, strategy) == pytest.approx(gap, abs=1e-15)


def brute_force_debiased(probabilities, labels, n_bins=10):
    """Kumar et al.'s estimator for 0/1 labels, over equal-mass bins of distinct values built by counting."""
    bins = {}
    for p, y in zip(probabilities, labels, strict=True):
        below = sum(q < p for q in probabilities)
        bins.setdefault(below * n_bins // len(labels), []).append((p, y))
    kept = [np.array(members) for members in bins.values() if len(members) > 1]
    total = 0.0
    for members in kept:
        p_mean, y_mean = members.mean(axis=0)
        total += len(members) * ((y_mean - p_mean) ** 2 - y_mean * (1 - y_mean) / (len(members) - 1))
    return np.sqrt(max(0.0, total / sum(len(members) for members in kept)))


@pytest.mark.parametrize("seed", range(5))
def test_debiased_error_against_kumars_formula(seed):
    truth, labels, _ = sample(120, seed=seed)
    probabilities = (0.5 + 1.6 * (truth - 0.5)).clip(0, 1)
    expected = brute_force_debiased(probabilities, labels)
    assert calibration_metrics(probabilities, labels)["ece_debiased"] == pytest.approx(expected, abs=1e-12)


def test_debiased_square_is_unbiased():
    """Every answer 0.6, every truth 0.75: the squared error is 0.0225, and the plug-in shows 0.75 · 0.25 / 20 more."""
    generator = np.random.default_rng(0)
    answers, bins = np.full(20, 0.6), np.zeros(20, dtype=int)
    squares = [
        _debiased_square(answers, (generator.random(20) < 0.75) * 1.0, bins, None, np.ones(20)) for _ in range(4000)
    ]
    plug_in = 0.0225 + 0.75 * 0.25 / 20
    assert np.mean(squares) == pytest.approx(0.0225, abs=3 * np.std(squares) / np.sqrt(4000))
    assert 3 * np.std(squares) / np.sqrt(4000) < 0.2 * (plug_in - 0.0225)


def test_rows_of_one_unit_are_dependent():
    """Twenty topics whose five labels are equal are twenty labels, not a hundred."""
    generator = np.random.default_rng(0)
    answers, bins, topics = np.full(100, 0.6), np.zeros(100, dtype=int), np.repeat(np.arange(20), 5)
    together, alone = [], []
    for _ in range(2000):
        labels = ((generator.random(20) < 0.75) * 1.0)[topics]
        together.append(_debiased_square(answers, labels, bins, topics, np.ones(100)))
        alone.append(_debiased_square(answers, labels, bins, None, np.ones(100)))
    assert np.mean(together) == pytest.approx(0.0225, abs=3 * np.std(together) / np.sqrt(2000))
    assert np.mean(alone) > 0.0225 + 0.6 * 0.75 * 0.25 / 20
    one_each = _debiased_square(answers, labels, bins, np.random.default_rng(1).permutation(100), np.ones(100))
    assert one_each == pytest.approx(alone[-1], abs=1e-12)


def test_corrected_decomposition_against_ferro_and_fricker():
    """Their equations for 0/1 outcomes, with bins counted one by one."""
    generator = np.random.default_rng(0)
    probabilities = generator.integers(0, 11, 200) / 10
    labels = generator.integers(0, 2, 200) * 1.0
    report = calibration_metrics(probabilities, labels)
    rate = labels.mean()
    within = 0.0
    for value in np.unique(probabilities):
        here = labels[probabilities == value]
        within += here.size / (here.size - 1) * here.mean() * (1 - here.mean()) / 200
    overall = rate * (1 - rate) / 199
    assert report["reliability_corrected"] == pytest.approx(report["reliability"] - within, abs=1e-12)
    assert report["resolution_corrected"] == pytest.approx(report["resolution"] - within + overall, abs=1e-12)
    assert report["uncertainty_corrected"] == pytest.approx(report["uncertainty"] + overall, abs=1e-12)


@pytest.mark.parametrize("both_orders", [False, True])
def test_corrected_decomposition_is_unbiased(both_orders):
    """Over data sets of 60 pairs the corrected terms average to those of the population."""
    grid, chance = np.array([0.2, 0.5, 0.9]), np.array([0.4, 0.5, 0.7])
    generator = np.random.default_rng(0)
    reports = []
    for _ in range(1500):
        which = generator.permutation(np.repeat([0, 1, 2], 20))
        answers, labels, units = grid[which], (generator.random(60) < chance[which]) * 1.0, np.arange(60)
        if both_orders:
            # The judge ignores the responses: equal answers in both orders, whose two labels in a bin add up to 1.
            answers, labels, units = np.tile(answers, 2), np.r_[labels, 1 - labels], np.tile(units, 2)
        bins = bin_indices(answers, 10, "distinct")
        reports.append(_decomposition(answers, labels, bins, units, np.ones(units.size)))
    mean_label = np.full(3, 0.5) if both_orders else chance
    rate = mean_label.mean()
    truth = {
        "reliability_corrected": np.mean((grid - mean_label) ** 2),
        "resolution_corrected": np.mean((mean_label - rate) ** 2),
        "uncertainty_corrected": rate * (1 - rate),
    }
    for key, value in truth.items():
        shown = np.array([report[key] for report in reports])
        assert shown.mean() == pytest.approx(value, abs=3.5 * shown.std() / np.sqrt(1500) + 1e-12), key
    if not both_orders:
        assert np.mean([report["reliability"] for report in reports]) > truth["reliability_corrected"] + 0.008


def test_corrected_decomposition_needs_an_answer_given_twice():
    assert "reliability_corrected" not in calibration_metrics([0.1, 0.9], [0, 1])
    assert "reliability_corrected" not in calibration_metrics([0.1, 0.1], [0, 1], units=[7, 7])
    report = calibration_metrics([0.1, 0.1, 0.9], [0, 1, 1])
    corrected = report["reliability_corrected"] - report["resolution_corrected"] + report["uncertainty_corrected"]
    assert corrected == pytest.approx(report["brier"], abs=1e-12)


def test_top_label_and_class_wise_errors_by_hand():
    # sides: B at 0.8 (voted 0 and 1), A at 1 − 0.3 = 0.7 (voted B: 1, so 0 for A), both at 0.5
    probabilities, labels = [0.8, 0.8, 0.3, 0.5], [0, 1, 1, 1]
    report = calibration_metrics(probabilities, labels)
    assert report["ece_toplabel"] == pytest.approx((0.6 + 0.7 + 0) / 4)
    assert report["ece_classwise"] == pytest.approx(report["ece"]) == pytest.approx((0.6 + 0.7 + 0.5) / 4)


def test_top_label_error_cannot_detect_a_judge_that_favours_b():
    """It answers 0.9 for B at a rate of 0.8 and 0.9 for A at a rate of 1.0: too high for B throughout."""
    probabilities, labels = np.repeat([0.9, 0.1], 50), np.r_[np.repeat([1, 0], [40, 10]), np.zeros(50)]
    report = calibration_metrics(probabilities, labels)
    assert report["ece"] == pytest.approx(0.1)
    assert report["ece_toplabel"] == pytest.approx(0, abs=1e-12)


def test_class_wise_error_is_that_of_both_sides():
    probabilities, labels, _ = sample(300, votes=3)
    expected = [
        expected_calibration_error(probabilities, labels),
        expected_calibration_error(1 - probabilities, 1 - labels),
    ]
    assert calibration_metrics(probabilities, labels)["ece_classwise"] == pytest.approx(np.mean(expected), abs=1e-12)


def test_debiased_error_needs_a_bin_of_two():
    assert "ece_debiased" not in calibration_metrics([0.1, 0.9], [0, 1])
    assert "ece_debiased" in calibration_metrics([0.1, 0.1], [0, 1])


def test_corrected_mse_recovers_the_error_against_the_truth():
    truth, labels, generator = sample(200_000, votes=3)
    probabilities = (truth + 0.1 * generator.normal(size=truth.size)).clip(0, 1)
    report = calibration_metrics(probabilities, labels, n_votes=3)
    against_truth = np.mean((probabilities - truth) ** 2)
    assert report["mse_dense"] > 3 * against_truth
    assert report["mse_corrected"] == pytest.approx(against_truth, abs=1e-3)


def test_corrected_mse_uses_the_rows_with_several_votes():
    report = calibration_metrics([0.5, 0.9, 0.2], [0.75, 1.0, 0.5], n_votes=[4, 1, 2])
    assert report["mse_corrected"] == pytest.approx(((0.0625 - 0.1875 / 3) + (0.09 - 0.25)) / 2)
    assert "mse_corrected" not in calibration_metrics([0.5], [1], n_votes=1)
    assert "mse_corrected" not in calibration_metrics([0.5], [1])


def test_the_truth_against_a_hundred_thousand_votes_is_within_its_noise_floor():
    """One vote on each of 100,000 pairs; and 100,000 votes on each of 2,000."""
    truth, labels, generator = sample(100_000)
    report = calibration_metrics(truth, labels)
    floor = ece_noise_floor(truth)
    assert floor < 0.005
    assert report["ece"] <= 1.5 * floor  # the floor is a mean; nine bins in ten stay below 1.5 times it
    floors = [expected_calibration_error(truth, generator.binomial(1, truth)) for _ in range(200)]
    assert report["ece"] <= np.quantile(floors, 0.99)
    assert np.mean(floors) == pytest.approx(floor, rel=0.06)

    truth = generator.beta(0.8, 0.8, 2000)
    report = calibration_metrics(truth, generator.binomial(100_000, truth) / 100_000)
    assert report["ece"] <= 1.5 * ece_noise_floor(truth, 100_000) < 2e-4
    assert report["smooth_ece"] < 1e-3


def test_a_majority_voter_is_worse_than_the_truth_except_by_ece_majority():
    """The trap of published numbers, with the figures of the README: five votes a pair."""
    truth, labels, _ = sample(20_000, votes=5)
    honest = calibration_metrics(truth, labels)
    hard = calibration_metrics((labels > 0.5) * 1.0, labels)
    print({name: {k: round(r[k], 3) for k in ("ece", "ece_majority")} for name, r in (("p*", honest), ("hard", hard))})
    assert honest["ece"] < 0.02 < 0.1 < hard["ece"]
    assert honest["smooth_ece"] < 0.02 < 0.1 < hard["smooth_ece"]
    assert hard["ece_majority"] == 0 < 0.05 < honest["ece_majority"]


def torchmetrics_ece(probabilities, labels):
    import torch
    from torchmetrics.functional.classification import binary_calibration_error

    labels = torch.tensor(np.asarray(labels), dtype=torch.long)
    return binary_calibration_error(torch.tensor(probabilities), labels, n_bins=10, norm="l1").item()


def relplot_ece(probabilities, labels):
    relplot = pytest.importorskip("relplot")
    return relplot.metrics.binnedECE(np.asarray(probabilities), np.asarray(labels), nbins=10)


@pytest.mark.parametrize("other", [torchmetrics_ece, relplot_ece])
def test_ece_agrees_with_other_libraries_away_from_the_edges(other):
    generator = np.random.default_rng(0)
    probabilities = generator.random(1000)
    labels = (generator.random(1000) < probabilities**2) * 1.0
    assert expected_calibration_error(probabilities, labels) == pytest.approx(other(probabilities, labels), abs=1e-6)


@pytest.mark.parametrize(
    ("ece", "misplaced"),
    [
        (expected_calibration_error, []),
        (torchmetrics_ece, [0.1, 0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]),
        (relplot_ece, [0.1, 0.2, 0.4, 0.5, 0.8, 0.9, 1.0]),
    ],
)
def test_tenths_belong_to_the_bin_below_them(ece, misplaced):
    """v, voted A, and v − 0.05, voted B, are one right-closed bin, where their residuals cancel in part."""
    apart = [v for v in np.arange(1, 11) / 10 if ece([v, v - 0.05], [0, 1]) > abs(1.05 - 2 * v) / 2 + 1e-6]
    assert apart == misplaced


@pytest.mark.parametrize(("ece", "misplaced"), [(torchmetrics_ece, [0.3]), (relplot_ece, [0.3, 0.6, 0.7])])
def test_other_libraries_do_not_keep_to_left_closed_bins_either(ece, misplaced):
    """v, voted A, and v + 0.05, voted B, are one left-closed bin; the edge at 3 · 0.1 is above the answer 0.3."""
    apart = [v for v in np.arange(1, 10) / 10 if ece([v, v + 0.05], [0, 1]) > abs(0.95 - 2 * v) / 2 + 1e-6]
    assert apart == misplaced


def test_majority_ece_drops_split_labels():
    with_ties = calibration_metrics([0.9, 0.8, 0.3], [0.6, 0.5, 0.2])
    assert with_ties["ece_majority"] == pytest.approx((0.1 + 0.3) / 2)
    assert "ece_majority" not in calibration_metrics([0.9, 0.8], [0.5, 0.5])


def test_sharpness_and_distinct_answers():
    report = calibration_metrics([0.0, 0.3, 0.1 + 0.2, 1.0], [0, 0, 1, 1])
    assert report["distinct_answers"] == 3
    assert report["sharpness"] == pytest.approx(np.var([0, 0.3, 0.3, 1]))


@given(rows, st.integers(0, 5), st.integers(2, 3))
def test_order_of_rows_and_whole_copies_do_not_matter(data, seed, copies):
    probabilities, labels = data
    report = calibration_metrics(probabilities, labels, n_votes=3)
    shuffle = np.random.default_rng(seed).permutation(labels.size)
    shuffled = calibration_metrics(probabilities[shuffle], labels[shuffle], n_votes=3)
    assert shuffled == pytest.approx(report, abs=1e-9)
    copied = calibration_metrics(np.tile(probabilities, copies), np.tile(labels, copies), n_votes=3)
    for key in set(report) & set(copied) - {"ece_debiased"}:  # those that know how many rows there are
        if key.endswith("_corrected") and key != "mse_corrected":
            continue
        assert copied[key] == pytest.approx(report[key], abs=1e-9), key


@given(rows)
def test_reports_are_finite_floats_in_range(data):
    report = calibration_metrics(*data, n_votes=2)
    assert all(type(value) is float and np.isfinite(value) for value in report.values())
    unbounded = {"log_loss", "mse_corrected", "distinct_answers", "reliability_corrected", "resolution_corrected"}
    bounded = set(report) - unbounded
    assert all(0 <= report[key] <= 1 for key in bounded)


def test_a_million_predictions_take_seconds():
    generator = np.random.default_rng(0)
    truth = generator.random(1_000_000)
    labels = (generator.random(1_000_000) < truth) * 1.0
    start = time.process_time()
    report = calibration_metrics(truth, labels)
    assert time.process_time() - start < 60
    assert report["ece"] < 0.005
