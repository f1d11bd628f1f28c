import json
from dataclasses import replace

import numpy as np
import pytest

from autorater.metrics import (
    Targets,
    agreement,
    calibration_metrics,
    ece_noise_floor,
    expected_calibration_error,
    judge_metrics,
    position_bias,
    three_way_agreement,
)

HEADLINE = [
    "brier",
    "log_loss",
    "ece",
    "gap",
    "mse_dense",
    "excess_brier",
    "agreement",
    "agreement_three_way",
    "cohen_kappa",
    "consistency",
    "flip_rate",
    "first_slot_share",
    "symmetry_deviation_mean",
    "symmetry_deviation_abs",
    "parse_rate",
]
CONTRACT = [
    *["brier", "log_loss", "ece", "ece_quantile", "ece_debiased", "smooth_ece", "reliability", "resolution"],
    *["uncertainty", "mse_dense", "mse_corrected", "excess_brier", "agreement", "agreement_three_way", "consistency"],
    "cohen_kappa",
    *["symmetry_deviation_mean", "symmetry_deviation_abs", "parse_rate", "distinct_answers", "sharpness", "n_pairs"],
    *["ece_majority", "ece_noise_floor", "flip_rate", "first_slot_share", "sharpness_symmetrized", "gap"],
    *["macro_f1", "ece_toplabel", "ece_classwise"],
    *["reliability_corrected", "resolution_corrected", "uncertainty_corrected"],
    *["brier_noise_floor", "log_loss_noise_floor", "mse_dense_noise_floor", "ece_quantile_noise_floor"],
]
SYMMETRIZED = ["brier", "log_loss", "mse_dense", "ece", "excess_brier", "agreement"]


@pytest.fixture(scope="module")
def pairs():
    generator = np.random.default_rng(0)
    truth = generator.beta(0.8, 0.8, 400)
    labels = generator.binomial(3, truth) / 3
    p_ab = (truth + 0.1 + 0.1 * generator.normal(size=400)).clip(0, 1).round(2)
    p_ba = (1 - truth + 0.1 + 0.1 * generator.normal(size=400)).clip(0, 1).round(2)
    return {"p_ab": p_ab, "p_ba": p_ba, "labels": labels, "true_probability": truth}


def measured(p_ab, p_ba, labels=None, true_probability=None, n_votes=None, clusters=None, **options):
    targets = Targets(labels, n_votes, true_probability, clusters)
    return judge_metrics(np.stack([p_ab, p_ba], axis=1), targets, **options)


def test_all_keys_of_the_contract(pairs):
    report = measured(**pairs, n_votes=3, n_bootstrap=50)
    intervals = [f"{key}_{end}" for key in HEADLINE for end in ("low", "high")]
    constants = [
        f"{key}_{name}" for key in ("brier", "mse_dense", "excess_brier") for name in ("constant", "base_rate")
    ]
    added = [*constants, *(f"{key}_symmetrized" for key in SYMMETRIZED)]
    assert set(report) == {*CONTRACT, *added, *intervals}
    assert all(type(value) is float and np.isfinite(value) for value in report.values())
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_values_are_those_of_the_single_metrics(pairs):
    report = measured(**pairs, n_votes=3, n_bootstrap=0)
    p_ab, p_ba, labels, truth = pairs.values()
    both, targets = np.concatenate([p_ab, p_ba]), np.concatenate([labels, 1 - labels])
    expected = calibration_metrics(both, targets, n_votes=3, units=np.tile(np.arange(400), 2))
    expected |= position_bias(p_ab, p_ba) | three_way_agreement(both, targets)
    assert {key: report[key] for key in expected} == pytest.approx(expected, abs=1e-12)
    assert report["agreement"] == pytest.approx(agreement(both, targets))
    assert report["excess_brier"] == pytest.approx(np.mean((both - np.concatenate([truth, 1 - truth])) ** 2))
    p_sym = (p_ab + 1 - p_ba) / 2
    alone = calibration_metrics(p_sym, labels)
    for key in ("brier", "log_loss", "mse_dense", "ece"):
        assert report[f"{key}_symmetrized"] == pytest.approx(alone[key], abs=1e-12)
    assert report["agreement_symmetrized"] == pytest.approx(agreement(p_sym, labels))
    assert report["excess_brier_symmetrized"] == pytest.approx(np.mean((p_sym - truth) ** 2))
    assert report["n_pairs"] == 400
    halves, means = np.full(400, 0.5), np.full(400, labels.mean())
    for name, answers in (("constant", halves), ("base_rate", means)):
        assert report[f"excess_brier_{name}"] == pytest.approx(np.mean((answers - truth) ** 2))
        constant = measured(answers, 1 - answers, labels, truth, n_bootstrap=0)
        assert report[f"brier_{name}"] == pytest.approx(constant["brier"])
        assert report[f"mse_dense_{name}"] == pytest.approx(constant["mse_dense"])
    assert report["ece_noise_floor"] == ece_noise_floor(both, 3, both_orders=True)
    single = measured(p_ab, p_ba, labels.round(), n_bootstrap=0)
    assert single["ece_noise_floor"] == ece_noise_floor(both, 1, both_orders=True)


def test_asymmetry_costs_a_quarter_of_its_square(pairs):
    report = measured(**pairs, n_bootstrap=0)
    cost = np.mean((pairs["p_ab"] + pairs["p_ba"] - 1) ** 2) / 4
    assert cost > 0.01
    for key in ("brier", "mse_dense", "excess_brier"):
        assert report[key] == pytest.approx(report[f"{key}_symmetrized"] + cost, abs=1e-12)


def test_intervals_hold_their_estimates_and_narrow_with_more_pairs(pairs):
    report = measured(**pairs, n_bootstrap=300)
    many = measured(**{key: np.tile(values, 16) for key, values in pairs.items()}, n_bootstrap=300)
    for key in set(HEADLINE) - {"parse_rate"}:
        low, high = report[f"{key}_low"], report[f"{key}_high"]
        assert low <= report[key] <= high, key
        assert many[f"{key}_high"] - many[f"{key}_low"] < 0.4 * (high - low), key


def test_the_interval_of_the_ece_is_about_the_reported_ece(pairs):
    """Resampled errors centre on the estimate when there is no noise left to add."""
    many = {key: np.tile(values, 400) for key, values in pairs.items()}
    report = measured(**many, n_bootstrap=20)
    assert report["ece"] > 0.05
    assert report["ece_low"] == pytest.approx(report["ece"], abs=0.005)
    assert report["ece_high"] == pytest.approx(report["ece"], abs=0.005)


def test_orders_of_a_pair_are_resampled_together():
    """The symmetry deviation is 0 in each pair; resampling the orders separately would give it a spread."""
    p_ab = np.random.default_rng(0).integers(0, 5, 50) / 4
    report = measured(p_ab, 1 - p_ab, p_ab.round(), n_bootstrap=50)
    assert report["symmetry_deviation_mean_low"] == report["symmetry_deviation_mean_high"] == 0
    assert 0.9 < report["consistency_low"] < report["consistency_high"] == 1


def test_clusters_widen_the_intervals(pairs):
    copies = {key: np.repeat(values, 9) for key, values in pairs.items()}
    alone = measured(**copies, n_bootstrap=200)
    together = measured(**copies, n_bootstrap=200, clusters=np.repeat(np.arange(400), 9))
    width = [report["brier_high"] - report["brier_low"] for report in (alone, together)]
    assert width[1] / width[0] == pytest.approx(3, rel=0.25)


def test_swapping_the_names_changes_nothing(pairs):
    report = measured(**pairs, n_votes=3, n_bootstrap=0)
    p_ab, p_ba, labels, truth = pairs.values()
    renamed = measured(p_ba, p_ab, 1 - labels, true_probability=1 - truth, n_votes=3, n_bootstrap=0)
    # Right-closed bins are not mirror images, and of two orders each has its own simulated votes.
    for key in set(report) - {"ece_symmetrized", "ece_noise_floor", "ece_quantile_noise_floor"}:
        assert renamed[key] == pytest.approx(report[key], abs=1e-9), key


def test_without_labels_only_what_needs_none(pairs):
    report = measured(pairs["p_ab"], pairs["p_ba"], n_bootstrap=20)
    assert {"consistency", "consistency_low", "first_slot_share_high", "parse_rate", "n_pairs", "sharpness"} <= set(
        report
    )
    assert not {"brier", "ece", "agreement", "excess_brier", "ece_noise_floor"} & set(report)


def test_undefined_metrics_have_no_key():
    report = measured([0.5, 0.5], [0.5, 0.5], [0.5, 0.5], n_bootstrap=20)
    assert not {"agreement", "agreement_low", "agreement_symmetrized", "ece_majority"} & set(report)
    assert not {key for key in report if key.startswith("first_slot_share")}
    assert all(np.isfinite(value) for value in report.values())
    single = measured([0.2], [0.7], [1], n_bootstrap=20)
    assert not {key for key in single if key.endswith(("_low", "_high"))}
    dense = measured([0.2, 0.3], [0.7, 0.8], [0.3, 0.4], n_bootstrap=0)
    assert not {"mse_corrected", "ece_noise_floor", "excess_brier"} & set(dense)


def test_parse_rate_and_modes(pairs):
    valid = np.tile([1.0, 0.5], (400, 1))
    mode = np.where(np.arange(400) % 2, 0.3, 0.1 + 0.2)
    report = measured(**pairs, valid=valid, mode=np.stack([mode, mode + 0.1], axis=1), n_bootstrap=20)
    assert report["parse_rate"] == 0.75
    assert report["distinct_answers"] == 2
    without_modes = measured(**pairs, valid=valid, n_bootstrap=0)
    assert without_modes["parse_rate"] == 0.75
    assert without_modes["distinct_answers"] == np.unique([pairs["p_ab"], pairs["p_ba"]]).size


def test_position_bias_is_that_of_the_answered_pairs(pairs):
    answered = np.arange(400) % 2 == 0
    silent = {name: np.where(answered, pairs[name], 0.5) for name in ("p_ab", "p_ba")}
    valid = np.tile(answered[:, None], (1, 2)).astype(float)
    report = measured(**{**pairs, **silent}, valid=valid, n_bootstrap=50)
    expected = position_bias(pairs["p_ab"][answered], pairs["p_ba"][answered])
    assert {name: report[name] for name in expected} == pytest.approx(expected)
    for name in ("consistency", "flip_rate", "first_slot_share", "symmetry_deviation_mean", "symmetry_deviation_abs"):
        assert report[f"{name}_low"] <= report[name] <= report[f"{name}_high"]
    everywhere = measured(**{**pairs, **silent}, valid=0 * valid, n_bootstrap=0)
    assert everywhere["consistency"] > report["consistency"], "no answer: all pairs"


def test_a_perfect_judge_sits_at_the_noise_floor():
    generator = np.random.default_rng(3)
    truth = generator.beta(1, 1, 3000)
    labels = (generator.random(3000) < truth) * 1.0
    report = measured(truth, 1 - truth, labels, true_probability=truth, n_bootstrap=0)
    assert 0.3 * report["ece_noise_floor"] < report["ece"] < 2 * report["ece_noise_floor"]
    assert report["excess_brier"] == pytest.approx(0, abs=1e-30)
    assert expected_calibration_error(truth, labels) < 0.05


@pytest.mark.parametrize("name", ["valid", "mode"])
def test_optional_answers_are_checked(name):
    with pytest.raises(ValueError, match=rf"{name}\[1, 0\] is 2; expected a value in \[0, 1\]"):
        measured([0.2, 0.3], [0.2, 0.3], [0, 1], **{name: [[0, 0], [2, 0]]})
    with pytest.raises(ValueError, match=f"{name} has length 1 and answers has length 2"):
        measured([0.2, 0.3], [0.2, 0.3], [0, 1], **{name: [[0, 0]]})
    with pytest.raises(ValueError, match=rf"{name} has shape \(2,\); expected \(N, 2\)"):
        measured([0.2, 0.3], [0.2, 0.3], [0, 1], **{name: [0, 0]})


@pytest.mark.parametrize("name", ["labels", "true_probability", "clusters"])
def test_targets_are_checked(name):
    with pytest.raises(ValueError, match=f"{name} has length 1 and answers has length 2"):
        measured([0.2, 0.3], [0.2, 0.3], **{name: [0]})
    if name != "clusters":
        with pytest.raises(ValueError, match=rf"{name}\[1\] is 2; expected a value in \[0, 1\]"):
            measured([0.2, 0.3], [0.2, 0.3], **{name: [0, 2]})


def test_the_seed_decides(pairs):
    assert measured(**pairs, n_bootstrap=20, seed=1) == measured(**pairs, n_bootstrap=20, seed=1)
    assert measured(**pairs, n_bootstrap=20, seed=1) != measured(**pairs, n_bootstrap=20, seed=2)


def test_weights_count_as_repetitions():
    """A weight of k is k rows; quantile bins and corrections for the number of pairs are of the rows as they are."""
    generator = np.random.default_rng(0)
    answers, labels = generator.integers(0, 11, (80, 2)) / 10, generator.integers(0, 4, 80) / 3
    weights = generator.integers(0, 4, 80).astype(float)
    targets = Targets(labels, 3, generator.random(80), weights=weights)
    again = np.repeat(np.arange(80), weights.astype(int))
    weighted = judge_metrics(answers, targets, n_bootstrap=0)
    repeated = judge_metrics(answers[again], replace(targets[again], weights=None), n_bootstrap=0)
    of_pairs = {"n_pairs", "n_pairs_effective", "parse_rate", *position_bias(*answers.T), "distinct_answers"}
    of_pairs |= {"ece_quantile", "ece_debiased", "sharpness"}
    for key in set(weighted) - of_pairs:
        if not key.endswith(("_corrected", "_noise_floor")) or key == "mse_corrected":
            assert weighted[key] == pytest.approx(repeated[key], abs=1e-12), key
    assert weighted["n_pairs_effective"] == pytest.approx(weights.sum() ** 2 / (weights**2).sum())
    for key in position_bias(*answers.T):
        assert weighted[key] == judge_metrics(answers, replace(targets, weights=None), n_bootstrap=0)[key], key


def test_weighted_intervals_cover():
    """Pairs of weight 4 have other votes than those of weight 1; the interval of the MSE holds the weighted truth."""
    generator, hits = np.random.default_rng(1), []
    share = 4 * 0.3 / (4 * 0.3 + 0.7)  # of the heavy pairs
    p = share * 0.8 + (1 - share) * 0.4
    truth = p * 0.8**2 + (1 - p) * 0.2**2
    for _ in range(400):
        heavy = generator.random(200) < 0.3
        labels = (generator.random(200) < np.where(heavy, 0.8, 0.4)).astype(float)
        targets = Targets(labels, weights=np.where(heavy, 4.0, 1.0))
        found = judge_metrics(np.tile([0.2, 0.8], (200, 1)), targets, n_bootstrap=200)
        hits.append(found["mse_dense_low"] <= truth <= found["mse_dense_high"])
    assert 0.92 <= np.mean(hits) <= 0.98
