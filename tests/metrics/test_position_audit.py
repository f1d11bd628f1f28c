import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autorater.metrics import position_bias
from autorater.metrics.position_audit import (
    audit_metrics,
    deviation_by_length,
    deviation_by_margin,
    repetition_metrics,
)

tenths = st.integers(0, 10).map(lambda k: k / 10)
reads = st.lists(st.tuples(tenths, tenths), min_size=1, max_size=30).map(np.array)


@given(reads)
def test_it_agrees_with_position_bias(answers):
    report, expected = audit_metrics(answers, n_bootstrap=0), position_bias(*answers.T)
    assert {key: report[key] for key in expected} == pytest.approx(expected, abs=1e-12)


@settings(deadline=None)
@given(reads)
def test_repeating_every_answer_changes_no_estimate(answers):
    once = audit_metrics(answers, n_bootstrap=0)
    twice = audit_metrics(np.repeat(answers[:, :, None], 2, axis=2), n_bootstrap=0)
    compared = {key for key in once if not key.endswith(("_low", "_high"))} - {"n_repeats"}
    assert {key: twice[key] for key in compared} == pytest.approx({key: once[key] for key in compared}, abs=1e-9)
    assert twice["repetition_stability"] == 1
    assert twice["repeated_flip_rate"] == 0


def test_categories_by_hand():
    # AA, A tie, BB, tie B, consistent, tie tie
    answers = np.array([[0, 0], [0, 0.5], [1, 1], [0.5, 1], [1, 0], [0.5, 0.5], [0, 0]])
    report = audit_metrics(answers, [0, 0, 0, 0, 1, 1, 0.5], n_bootstrap=0)
    assert report["primacy_share"] == pytest.approx(3 / 7)
    assert report["recency_share"] == pytest.approx(2 / 7)
    primacy, recency = 3, 2  # as the repository of Shi et al. rescales it
    raw = recency * recency / (primacy + recency) - primacy * primacy / (primacy + recency)
    assert report["preference_fairness"] == pytest.approx((raw + 7) / 14 * 2 - 1)
    # right: pair 1 ab; pair 2 ab; pair 3 ba; pair 4 ba; pair 5 both; pair 6 none; pair 7 has no winner
    assert report["accuracy"] == pytest.approx(6 / 12)
    assert report["position_consistent_accuracy"] == pytest.approx(1 / 6)
    assert "logit_shift" not in report
    assert "p_value_probabilities" not in report


def test_pairs_without_both_answers_are_left_out():
    nan = np.nan
    answers = np.array([[[0.9, nan], [0.2, 0.4]], [[0.6, 0.6], [nan, nan]], [[0.3, 0.1], [0.6, 0.8]]])
    report = audit_metrics(answers, n_bootstrap=0)
    assert report["n_pairs"] == 2
    assert report["symmetry_deviation_mean"] == pytest.approx(((0.9 + 0.2 - 1) + (-0.1 - 0.1) / 2) / 2)


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([[0.5, 1.2]], r"answers\[0, 1, 0\] is 1.2; expected a value in \[0, 1\]"),
        ([0.5, 0.2], r"have shape \(2,\)"),
        ([[np.nan, 0.2]], "no pair has an answer in both orders"),
    ],
)
def test_invalid_answers(answers, message):
    with pytest.raises(ValueError, match=message):
        audit_metrics(answers)


def test_intervals_cover():
    """95 % of experiments, roughly, whose truth is known."""
    draw, inside = np.random.default_rng(0), []
    for _ in range(200):
        answers = np.clip(0.5 + draw.normal(0.05, 0.1, (100, 2)), 0, 1)
        report = audit_metrics(answers, n_bootstrap=400)
        inside.append(report["symmetry_deviation_mean_low"] <= 0.1 <= report["symmetry_deviation_mean_high"])
    assert 0.9 <= np.mean(inside) <= 0.99


def test_repetition_metrics_by_hand():
    first = np.array([[0.9, 0.8, 0.2], [0.5, 0.5, 0.5], [0.1, 0.5, 0.9]])
    report = repetition_metrics(np.stack([first, 1 - first], axis=1))
    assert report["repetition_stability"] == pytest.approx((2 / 3 + 1 + 1 / 3) / 3)
    assert report["repeated_flip_rate"] == pytest.approx((2 / 3 + 0 + 1) / 3)
    spread = repetition_metrics(np.array([[[0.4, 0.6], [0.4, 0.6]], [[0.5, 0.5], [0.5, 0.5]]]))["repeated_spread"]
    assert spread == pytest.approx(0.1)


def slot_effect(deviations):
    return repetition_metrics(np.stack([np.full_like(deviations, 0.5), deviations + 0.5], axis=1))["slot_effect"]


def test_slot_effect_excludes_the_noise():
    draw = np.random.default_rng(0)
    effects = draw.normal(0, 0.1, (4000, 1))
    assert slot_effect(effects + draw.normal(0, 0.2, (4000, 3))) == pytest.approx(0.1, abs=0.01)
    assert slot_effect(np.full((5, 2), 0.3)) == pytest.approx(0.3)
    assert slot_effect(np.array([[0.1, -0.1]])) == 0


def test_deviation_by_margin():
    strata = deviation_by_margin(np.array([[0.9, 0.1], [0.6, 0.6], [0.5, 0.5], [1.0, 0.2]])[:, :, None])
    assert [(s["low"], s["high"], s["n_pairs"]) for s in strata] == [(0.0, 0.1, 2), (0.3, 0.4, 2)]
    assert strata[0]["symmetry_deviation_abs"] == pytest.approx(0.1)
    assert strata[0]["consistency"] == 0.5


def test_deviation_by_length():
    answers = np.tile([[[0.6], [0.5]]], (4, 1, 1))
    strata = deviation_by_length(answers, np.array([10, 10, 30, 1]), np.array([10, 11, 10, 1000]))
    expected = [(1.0, 1.1, 2), (2.0, 4.0, 1), (4.0, float("inf"), 1)]
    assert [(s["low"], s["high"], s["n_pairs"]) for s in strata] == expected


def test_strata_and_quantiles_are_of_the_pairs_behind_the_means():
    """With repetitions a pair is the mean of its repetitions, whose deviations do not cancel in |d|."""
    answers = np.random.default_rng(0).choice([0.2, 0.8], size=(200, 2, 10))
    answers[:20, 0, 0] = np.nan
    metrics = audit_metrics(answers, n_bootstrap=0)
    strata = deviation_by_margin(answers)
    assert len(strata) > 1
    for key in ("consistency", "symmetry_deviation_mean", "symmetry_deviation_abs"):
        mean = sum(stratum["n_pairs"] * stratum[key] for stratum in strata) / 200
        assert mean == pytest.approx(metrics[key]), key
    low, high = metrics["symmetry_deviation_abs_q50"], metrics["symmetry_deviation_abs_q95"]
    assert low < metrics["symmetry_deviation_abs"] * 1.1 < high
    sizes = np.nanmean(np.abs(answers.sum(axis=1) - 1), axis=1)
    assert high == pytest.approx(np.quantile(sizes, 0.95))


def test_copies_of_a_pair_are_one_pair_for_the_test_of_any_slot():
    answers = np.random.default_rng(3).choice([0.2, 0.8], size=(8, 2, 4))
    once = audit_metrics(answers, n_bootstrap=0)["p_value_any_slot"]
    copies = audit_metrics(np.repeat(answers, 5, axis=0), clusters=np.repeat(np.arange(8), 5), n_bootstrap=0)
    assert copies["p_value_any_slot"] == once
