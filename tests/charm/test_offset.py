import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.special import expit

from autorater.charm import empirical_win_rate, expected_win_rate, fit_offset, mismatch_degree, preferences


def scores(n=500, spread=2.0, shift=1.5, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(shift, spread, n), rng.normal(0, spread, n)


@pytest.mark.parametrize("expected", [1e-12, 1e-3, 0.1, 0.4187, 0.5, 0.93, 1 - 1e-6])
@pytest.mark.parametrize("spread", [0.0, 0.01, 2.0, 300.0, 1e5])
def test_the_win_rate_is_the_expected_one_after_the_fit(spread, expected):
    over, reference = scores(spread=spread)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # spread 0
        offset = fit_offset(over, reference, expected)
    assert type(offset) is float
    assert expit(over + offset - reference).mean() == pytest.approx(expected, abs=1e-9, rel=1e-4)
    assert empirical_win_rate(over, reference, offset) == pytest.approx(expected, abs=1e-9, rel=1e-4)


def test_the_same_root_as_scipy():
    over, reference = scores()
    root = brentq(lambda x: expit(over + x - reference).mean() - 0.4, -50, 50, xtol=1e-13)
    assert fit_offset(over, reference, 0.4) == pytest.approx(root, abs=1e-11)


def test_the_same_offset_as_gradient_descent_on_the_squared_error():
    torch = pytest.importorskip("torch")
    over, reference = scores()
    difference = torch.tensor(over - reference)
    offset = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([offset], lr=0.05)
    for _ in range(1500):
        optimizer.zero_grad()
        ((torch.sigmoid(difference + offset).mean() - 0.42) ** 2).backward()
        optimizer.step()
    assert fit_offset(over, reference, 0.42) == pytest.approx(offset.item(), abs=1e-4)


differences = st.lists(st.floats(-30, 30), min_size=1, max_size=20)


@given(differences, st.floats(0.01, 0.99), st.floats(-20, 20))
def test_properties_of_the_offset(over, expected, shift):
    over, reference = np.array(over), np.zeros(len(over))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        offset = fit_offset(over, reference, expected)
        shifted = fit_offset(over + shift, reference, expected)
        other_side = fit_offset(reference, over, 1 - expected)
    # where the mean is flat between far scores, many offsets are right: compare what they do
    assert empirical_win_rate(over, reference, offset) == pytest.approx(expected, abs=1e-12)
    assert empirical_win_rate(over + shift, reference, shifted) == pytest.approx(expected, abs=1e-12)
    assert empirical_win_rate(reference, over, other_side) == pytest.approx(1 - expected, abs=1e-12)


@pytest.mark.parametrize("expected", [5e-324, 1e-300, 0.3, 1 - 1.2e-16])
@pytest.mark.parametrize("over", [[1.0, 2.0], [1e300, -1e300]])
def test_extreme_scores_and_win_rates_have_a_finite_offset(over, expected):
    assert np.isfinite(fit_offset(over, [0.0, 0.0], expected))


def test_one_prompt_has_a_closed_form():
    assert fit_offset([2.0], [1.0], 0.25) == pytest.approx(-1 - np.log(3))


def test_equal_differences_are_bounded_and_warned_about():
    with pytest.warns(
        RuntimeWarning, match="all 3 score differences are 0; with any offset the same model is preferred"
    ):
        assert fit_offset([1, 1, 1], [1, 1, 1], 0.25) == pytest.approx(-np.log(3))


@pytest.mark.parametrize("expected", [0, 1, 0.0, 1.0])
def test_no_finite_offset(expected):
    with pytest.raises(ValueError, match=rf"expected is {expected:g}, which no finite offset reaches"):
        fit_offset([1.0], [2.0], expected)


@pytest.mark.parametrize("function", [lambda a, b: fit_offset(a, b, 0.5), empirical_win_rate, preferences])
@pytest.mark.parametrize(
    ("over", "message"),
    [
        ([], "scores_over is empty"),
        ([1.0, np.nan], r"scores_over\[1\] is NaN"),
        ([np.inf, 1.0], r"scores_over\[0\] is inf; expected a finite number"),
        ([1.0, 2.0, 3.0], "scores_reference has length 2 and scores_over has length 3; expected equal lengths"),
        ([[1.0, 2.0]], r"scores_over has shape \(1, 2\)"),
        (["high", "low"], "scores_over is not a one-dimensional array of numbers"),
        ([1.7e308, 1.0], r"scores_over - scores_reference\[0\] is inf"),
    ],
)
def test_bad_scores_are_refused(function, over, message):
    with pytest.raises(ValueError, match=message):
        function(over, [-1.7e308, 1.0])


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        (1.5, r"expected\[0\] is 1\.5; expected a value in \[0, 1\]"),
        (float("nan"), r"expected\[0\] is NaN"),
        ([0.5, 0.5], r"expected has shape \(2,\); expected a single number"),
    ],
)
def test_bad_win_rates_are_refused(expected, message):
    with pytest.raises(ValueError, match=message):
        fit_offset([1.0], [2.0], expected)


def test_single_precision_scores_are_not_rounded():
    over, reference = (column.astype(np.float32) for column in scores())
    wide = fit_offset(over.astype(np.float64), reference.astype(np.float64), 0.3)
    assert fit_offset(over, reference, 0.3) == wide


def test_preferences_by_hand():
    over, reference = [3.0, 1.0, 2.0, 0.0], [1.0, 2.0, 2.0, -1.0]
    assert preferences(over, reference).tolist() == [1, -1, 0, 1]
    assert preferences(over, reference, -1.0).tolist() == [1, -1, -1, 0]


@pytest.mark.parametrize(
    ("over", "reference", "rate"),
    [(1000, 1000, 0.5), (1400, 1000, 10 / 11), (1000, 1400, 1 / 11), (1800, 1000, 100 / 101)],
)
def test_expected_win_rate_by_hand(over, reference, rate):
    assert expected_win_rate(over, reference) == pytest.approx(rate, rel=1e-15)
    assert type(expected_win_rate(over, reference)) is float


def test_expected_win_rate_of_far_models_does_not_overflow():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert expected_win_rate(1e300, 0) == 1
        assert expected_win_rate(0, 4000) == pytest.approx(1e-10, rel=1e-9)


def test_expected_win_rates_of_arrays():
    elo = np.array([1000.0, 1100.0, 1250.0])
    rates = expected_win_rate(elo[:, None], elo)
    assert rates.shape == (3, 3)
    np.testing.assert_allclose(rates + rates.T, 1, rtol=1e-15)
    np.testing.assert_allclose(rates, 1 / (1 + 10 ** ((elo - elo[:, None]) / 400)), rtol=1e-13)


@pytest.mark.parametrize(
    ("empirical", "expected", "degree"),
    [(0.9, 0.4, 0.5 / 0.6), (0.4, 0.4, 0.0), (0.1, 0.6, 0.5 / 0.6), (1.0, 0.0, 1.0), (0.5, 1.0, 0.5), (0.7, 0.5, 0.4)],
)
def test_mismatch_degree_by_hand(empirical, expected, degree):
    assert mismatch_degree(empirical, expected) == pytest.approx(degree, abs=1e-15)
    assert mismatch_degree(1 - empirical, 1 - expected) == pytest.approx(degree, abs=1e-15), "the opponent's side"


def test_mismatch_degrees_of_arrays():
    np.testing.assert_allclose(mismatch_degree([0.9, 0.5], 0.5), [0.8, 0.0])
    with pytest.raises(ValueError, match=r"could not be broadcast together with shapes \(2,\) \(3,\)"):
        mismatch_degree([0.9, 0.5], [0.5, 0.5, 0.5])


@pytest.mark.parametrize("function", [expected_win_rate, mismatch_degree])
@pytest.mark.parametrize("bad", [float("nan"), [], float("inf"), "high", None])
def test_bad_rates_and_elo_are_refused_in_either_place(function, bad):
    with pytest.raises(ValueError, match=r"empty|NaN|inf|not a one-dimensional array of numbers"):
        function(bad, 0.5)
    with pytest.raises(ValueError, match=r"empty|NaN|inf|not a one-dimensional array of numbers"):
        function(0.5, bad)


def test_importing_needs_numpy_and_scipy_only():
    import subprocess
    import sys

    code = "import sys, autorater.charm; assert not {'torch', 'sklearn', 'pandas', 'datasets'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
