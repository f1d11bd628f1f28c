import numpy as np
import pytest
import torch

from autorater.metrics import (
    Targets,
    agreement,
    calibration_metrics,
    deferral_threshold,
    ece_noise_floor,
    expected_calibration_error,
    judge_metrics,
    position_bias,
    reliability_curve,
)

TWO_ARRAYS = [
    expected_calibration_error,
    reliability_curve,
    calibration_metrics,
    agreement,
    position_bias,
]
BAD_VALUES = [
    ([], "is empty; expected at least one value"),
    ([0.2, float("nan")], r"\[1\] is NaN"),
    ([0.2, None], r"\[1\] is NaN|not a one-dimensional array of numbers"),
    ([0.2, 1.5], r"\[1\] is 1\.5; expected a value in \[0, 1\]"),
    ([-0.25, 0.2], r"\[0\] is -0\.25; expected a value in \[0, 1\]"),
    ([0.2, float("inf")], r"\[1\] is inf; expected a value in \[0, 1\]"),
    ([[0.2, 0.3]], r"has shape \(1, 2\); expected a one-dimensional array"),
    (0.5, r"has shape \(\); expected a one-dimensional array"),
    (["high", "low"], "not a one-dimensional array of numbers"),
    ([[0.1], [0.1, 0.2]], "not a one-dimensional array of numbers"),
    ([0.2, 0.3 + 1j], "its numbers are complex"),
    (torch.tensor([0.2, 0.3], requires_grad=True), "not a one-dimensional array of numbers: .* requires grad"),
]


@pytest.mark.parametrize("metric", TWO_ARRAYS)
@pytest.mark.parametrize(("values", "message"), BAD_VALUES)
def test_bad_values_are_refused_in_either_place(metric, values, message):
    with pytest.raises(ValueError, match=message):
        metric(values, [0.2, 0.3])
    with pytest.raises(ValueError, match=message):
        metric([0.2, 0.3], values)


@pytest.mark.parametrize("metric", TWO_ARRAYS)
def test_unequal_lengths_are_named(metric):
    with pytest.raises(ValueError, match=r"has length 3 and .* has length 2; expected equal lengths"):
        metric([0.2, 0.3], [0.2, 0.3, 0.4])


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([], r"answers has shape \(0,\); expected \(N, 2\)"),
        (np.zeros((0, 2)), r"answers has shape \(0, 2\); expected \(N, 2\)"),
        ([0.2, 0.3], r"answers has shape \(2,\)"),
        ([[0.2, 0.3, 0.4]], r"answers has shape \(1, 3\)"),
        ([[0.2, float("nan")]], r"answers\[0, 1\] is NaN; expected a value in \[0, 1\]"),
        ([[0.2, 0.3], [-0.25, 0.2]], r"answers\[1, 0\] is -0\.25; expected a value in \[0, 1\]"),
        ([["high", "low"]], "answers is not a two-dimensional array of numbers"),
        ([[0.1], [0.1, 0.2]], "answers is not a two-dimensional array of numbers"),
    ],
)
def test_bad_answers_of_two_orders_are_refused(answers, message):
    with pytest.raises(ValueError, match=message):
        judge_metrics(answers, Targets())


@pytest.mark.parametrize("votes", [0, 1.5, -1, float("nan"), float("inf"), [3, 0], [3, 3, 3]])
def test_bad_vote_counts_are_refused(votes):
    with pytest.raises(ValueError, match="n_votes"):
        calibration_metrics([0.2, 0.3], [0, 1], n_votes=votes)
    with pytest.raises(ValueError, match="n_votes"):
        ece_noise_floor([0.2, 0.3], votes)


def test_options_are_checked():
    with pytest.raises(ValueError, match="strategy is 'equal'; expected \"uniform\""):
        expected_calibration_error([0.2], [1], strategy="equal")
    with pytest.raises(ValueError, match="n_bins is 0; expected a whole number of at least 1"):
        expected_calibration_error([0.2], [1], n_bins=0)
    with pytest.raises(ValueError, match=r"n_bins is 2\.5"):
        expected_calibration_error([0.2], [1], n_bins=2.5)
    for wrong in (None, "10", float("nan")):
        with pytest.raises(ValueError, match=f"n_bins is {wrong}; expected a whole number of at least 1"):
            expected_calibration_error([0.2], [1], n_bins=wrong)
    for wrong in (None, "0.1", 0, 1):
        with pytest.raises(ValueError, match=rf"alpha is {wrong}; expected a value in \(0, 1\)"):
            deferral_threshold([0.2], [1], [0], alpha=wrong, delta=0.1)
    assert expected_calibration_error([0.2], [1], n_bins=np.int64(3)) == 0.8
    with pytest.raises(ValueError, match="n_rounds is 0"):
        ece_noise_floor([0.2], n_rounds=0)
    with pytest.raises(ValueError, match="n_bootstrap is -1"):
        judge_metrics([[0.2, 0.8]], Targets([0]), n_bootstrap=-1)


def test_any_sequence_of_numbers_is_taken():
    expected = expected_calibration_error(np.array([0.25, 1.0]), np.array([0.0, 1.0]))
    assert expected_calibration_error((0.25, 1), [False, True]) == expected
    assert expected_calibration_error(np.array([0.25, 1.0], dtype=np.float32), np.array([0, 1])) == expected


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_single_precision_answers_stay_in_their_bin(dtype):
    grid = np.arange(11) / 10
    curve = reliability_curve(grid.astype(dtype), np.zeros(11))
    assert np.array_equal(curve["count"], reliability_curve(grid, np.zeros(11))["count"])


def test_inputs_are_left_as_they_were():
    probabilities, labels = np.array([0.3, 0.123456789012]), np.array([0.0, 1.0])
    copies = probabilities.copy(), labels.copy()
    judge_metrics(np.stack([probabilities] * 2, axis=1), Targets(labels, n_votes=3), n_bootstrap=5)
    assert np.array_equal(probabilities, copies[0])
    assert np.array_equal(labels, copies[1])
