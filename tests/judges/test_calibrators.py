"""Recalibrations: known distortions are recovered, odd maps preserve verdicts, fits agree with independent ones."""

import json
from dataclasses import asdict
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import cauchy

from autorater.data.errors import UserError
from autorater.judges.calibrators import (
    CONTENT_FREE,
    RECALIBRATIONS,
    LogitMap,
    MonotoneMap,
    content_free_pairs,
    fit_recalibration,
    fit_shift,
    from_dict,
    shift_interval,
    shrunken_temperature,
    temperature_interval,
)
from autorater.metrics import position_bias
from autorater.metrics.scores import log_scores

fit_temperature, fit_odd_temperature, fit_platt, fit_isotonic = (
    partial(fit_recalibration, k) for k in RECALIBRATIONS[:4]
)
answers = st.integers(0, 10_000).map(lambda n: n / 10_000)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def logit(p):
    return np.log(p / (1 - p))


def distorted(temperature, shift=0.0, n=20_000, seed=0):
    """p*, single votes, and the answers of a judge whose logits are those of p* / temperature + shift."""
    generator = np.random.default_rng(seed)
    truth = sigmoid(generator.normal(0, 1.0, n))
    probabilities = [sigmoid(sign * logit(truth) / temperature + shift) for sign in (1, -1)]
    return truth, (generator.random(n) < truth).astype(float), *probabilities


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
@pytest.mark.parametrize("fit", [fit_temperature, fit_odd_temperature])
def test_known_temperature_is_recovered_and_held_out_log_loss_falls(fit, temperature):
    """A judge whose logits are too large by a factor is corrected by that factor, from 20,000 single votes."""
    _, labels, p_ab, p_ba = distorted(temperature)
    fitted = fit(p_ab, p_ba, labels)
    assert 1 / fitted.slope == pytest.approx(1 / temperature, rel=0.05)
    assert fitted.intercept == 0
    truth, labels, p_ab, p_ba = distorted(temperature, seed=1)  # other pairs
    before, after = log_scores(p_ab, labels).mean(), log_scores(fitted(p_ab), labels).mean()
    assert after <= before + 1e-4
    if temperature != 1:
        assert after < before - 0.005
    assert np.abs(fitted(p_ab) - truth).mean() < 0.01  # not the largest: answers near 0 and 1 are clipped


def test_position_bias_cancels_in_the_odd_temperature_only():
    _, labels, p_ab, p_ba = distorted(0.5, shift=1.5)
    assert 1 / fit_odd_temperature(p_ab, p_ba, labels).slope == pytest.approx(2, rel=0.05)
    assert 1 / fit_temperature(p_ab, p_ba, labels).slope > 2.5


def test_platt_removes_temperature_and_position_bias():
    truth, labels, p_ab, p_ba = distorted(0.5, shift=0.8)
    fitted = fit_platt(p_ab, p_ba, labels)
    assert fitted.slope == pytest.approx(0.5, rel=0.05)
    assert fitted.intercept == pytest.approx(-0.4, abs=0.03)
    assert abs(position_bias(fitted(p_ab), fitted(p_ba))["symmetry_deviation_mean"]) < 0.01
    assert np.abs(fitted(p_ab) - truth).mean() < 0.01


def test_the_interval_of_the_temperature_covers_it():
    covered = []
    for seed in range(300):
        _, votes, p_ab, p_ba = distorted(0.5, n=120, seed=seed)
        low, high = temperature_interval(p_ab, p_ba, votes)
        assert low <= 1 / fit_odd_temperature(p_ab, p_ba, votes).slope <= high
        covered.append(low <= 2 <= high)
    assert 0.92 <= np.mean(covered) <= 0.98


def test_a_temperature_without_an_upper_end():
    """Answers without relation to the votes exclude small temperatures only, right ones large temperatures only."""
    answers, votes = np.array([0.9, 0.1, 0.9, 0.1]), np.array([1.0, 1.0, 0.0, 0.0])
    assert temperature_interval(answers, 1 - answers, votes)[1] == 50
    low, high = temperature_interval(answers, 1 - answers, np.array([1.0, 0.0, 1.0, 0.0]))
    assert low == 1 / 50
    assert high < 50


@given(st.lists(st.tuples(answers, answers, answers), min_size=1, max_size=30))
def test_odd_temperature_leaves_consistency_unchanged(rows):
    p_ab, p_ba, labels = np.array(rows).T
    fitted = fit_odd_temperature(p_ab, p_ba, labels)
    before, after = position_bias(p_ab, p_ba), position_bias(fitted(p_ab), fitted(p_ba))
    for key in ("consistency", "flip_rate", "first_slot_share"):
        assert after.get(key) == before.get(key)


@given(answers, st.floats(0.02, 50))
def test_maps_without_intercept_are_odd_and_monotone(p, slope):
    odd = LogitMap("temperature", slope)
    assert odd(1 - p) == pytest.approx(1 - odd(p), abs=1e-12)
    assert odd(np.array(0.5)) == 0.5
    assert odd(np.minimum(p + 0.01, 1)) >= odd(p)


@settings(deadline=None)  # the first call imports scikit-learn
@given(st.lists(st.tuples(answers, answers), min_size=2, max_size=40))
def test_isotonic_of_a_symmetric_judge_is_symmetric(rows):
    p, labels = np.array(rows).T
    fitted = fit_isotonic(p, 1 - p, labels)
    np.testing.assert_allclose(fitted(p), 1 - fitted(1 - p), atol=1e-9)


def test_platt_does_not_turn_verdicts_around():
    p_ab = np.array([0.9, 0.8, 0.3, 0.2, 0.7])
    fitted = fit_platt(p_ab, 1 - p_ab, np.array([0.0, 0.0, 1.0, 1.0, 0.5]))
    assert fitted.slope == 1 / 50
    assert fitted.intercept == pytest.approx(0, abs=1e-6), "both orders have the same votes"


def test_platt_agrees_with_scikit_learn():
    """scikit-learn's own fit of a sigmoid, with the same smoothed targets."""
    from sklearn.calibration import _SigmoidCalibration

    _, labels, p_ab, p_ba = distorted(0.6, shift=0.5, n=200)
    reference = _SigmoidCalibration().fit(logit(np.r_[p_ab, p_ba]), np.r_[labels, 1 - labels])
    fitted = fit_platt(p_ab, p_ba, labels)
    assert fitted.slope == pytest.approx(-reference.a_, rel=1e-3)
    assert fitted.intercept == pytest.approx(-reference.b_, abs=1e-3)


@pytest.mark.parametrize("fit", [fit_temperature, fit_odd_temperature])
def test_temperature_has_the_lowest_log_loss(fit):
    _, labels, p_ab, p_ba = distorted(0.6, n=300)
    labels = labels * 0.8 + 0.1  # dense labels too
    x, y = logit(np.r_[p_ab, p_ba]), np.r_[labels, 1 - labels]
    found = minimize_scalar(lambda a: (np.logaddexp(0, a * x) - y * a * x).mean(), bounds=(0.02, 50), method="bounded")
    assert fit(p_ab, p_ba, labels).slope == pytest.approx(found.x, rel=1e-4)


@pytest.mark.parametrize("n_votes", [120, 480])
@pytest.mark.parametrize("temperature", [0.05, 0.5, 2.0])
def test_the_shrunken_temperature_is_the_maximum_a_posteriori(temperature, n_votes):
    _, votes, p_ab, p_ba = distorted(1 / temperature, n=120)
    s = (logit(p_ab) - logit(p_ba)) / 2
    slopes = np.exp(np.linspace(-4, 4, 8001))
    log_likelihood = n_votes * np.array([np.mean(votes * a * s - np.logaddexp(0, a * s)) for a in slopes])
    for scale in (0.5, 0.1):
        best = slopes[np.argmax(log_likelihood + cauchy.logpdf(np.log(slopes), scale=scale))]
        fitted = shrunken_temperature(p_ab, p_ba, votes, n_votes, scale)
        assert fitted.slope == pytest.approx(best, rel=5e-3)
        assert fitted.kind == "odd_temperature"


@settings(deadline=None)
@given(st.lists(st.tuples(answers, answers, answers), min_size=1, max_size=30))
def test_a_shrunken_temperature_is_between_one_and_the_likeliest(rows):
    p_ab, p_ba, labels = np.array(rows).T
    ends = sorted((1.0, fit_odd_temperature(p_ab, p_ba, labels).slope))
    few, many = (shrunken_temperature(p_ab, p_ba, labels, n).slope for n in (1, 10**9))
    assert ends[0] * (1 - 1e-9) <= few <= ends[1] * (1 + 1e-9)
    assert abs(np.log(few)) <= abs(np.log(many)) + 1e-6


def varying(n, seed=0, shift=0.5, spread=0.6):
    """The answers of a judge whose position bias differs between pairs, in logits."""
    generator = np.random.default_rng(seed)
    merit, bias = generator.normal(0, 1, n), generator.normal(shift, spread, n)
    return sigmoid(merit + bias), sigmoid(bias - merit)


@pytest.mark.parametrize("slope", [0.3, 1.0, 2.0])
def test_the_shift_has_the_lowest_log_loss_for_all_labels(slope):
    p_ab, p_ba = varying(80)
    generator = np.random.default_rng(1)
    for labels in (generator.random(80), np.ones(80), generator.integers(0, 2, 80)):
        x, y = slope * logit(np.r_[p_ab, p_ba]), np.r_[labels, 1 - labels]
        found = minimize_scalar(lambda b, x=x, y=y: (np.logaddexp(0, x + b) - y * (x + b)).mean())
        assert fit_shift(slope, p_ab, p_ba) == pytest.approx(found.x, abs=1e-6)


@given(st.lists(st.tuples(answers, answers), min_size=1, max_size=30), st.floats(0.1, 5))
def test_after_the_shift_the_mean_position_bias_is_zero(rows, slope):
    p_ab, p_ba = np.array(rows).T
    fitted = LogitMap("platt", slope, fit_shift(slope, p_ab, p_ba))
    assert (fitted(p_ab) + fitted(p_ba)).mean() == pytest.approx(1, abs=1e-9)
    other = LogitMap(
        "platt", slope, fit_shift(slope, p_ba, p_ab)
    )  # far from 1/2 the shift itself is hardly determined
    np.testing.assert_allclose(other(p_ab), fitted(p_ab), atol=1e-9)


def test_the_interval_of_the_shift_covers_it():
    truth, covered = fit_shift(0.8, *varying(400_000, seed=10_000)), []
    for seed in range(400):
        answers = varying(100, seed)
        low, high = shift_interval(LogitMap("platt", 0.8, fit_shift(0.8, *answers)), *answers)
        covered.append(low <= truth <= high)
    assert 0.92 <= np.mean(covered) <= 0.98


def test_fits_equal_pinned_numbers():
    """Fitted earlier by bisection of the derivative and by Newton's method, without scipy."""
    _, labels, p_ab, p_ba = distorted(0.6, shift=0.5, n=300)
    assert fit_temperature(p_ab, p_ba, labels).slope == pytest.approx(0.6538176264474577, rel=1e-9)
    assert fit_odd_temperature(p_ab, p_ba, labels).slope == pytest.approx(0.727912728332051, rel=1e-9)
    platt = fit_platt(p_ab, p_ba, labels)
    assert platt.slope == pytest.approx(0.7201646597942524, rel=1e-8)
    assert platt.intercept == pytest.approx(-0.36008232989712624, rel=1e-8)
    assert fit_recalibration("contextual", p_ab, p_ba, labels, [0.7, 0.9, 1.0]).intercept == pytest.approx(
        -1.8718021769015918, rel=1e-12
    )
    assert fit_recalibration("batch", p_ab, p_ba, labels).intercept == pytest.approx(-0.33082550444558745, rel=1e-12)


def test_isotonic_has_the_lowest_squared_error_of_all_monotone_maps():
    """Pool-adjacent-violators by hand: blocks of falling means are merged until none falls."""
    p = np.array([0.1, 0.2, 0.3, 0.4])
    labels = np.array([0.0, 0.6, 0.3, 1.0])
    p_ba = np.array([0.6, 0.7, 0.8, 0.9])
    fitted = fit_isotonic(p, p_ba, labels)  # above 0.5 the targets are 1, 0.4, 0.7, 0: one block with all before
    np.testing.assert_allclose(fitted(np.array([0.1, 0.2, 0.3])), [0, 0.45, 0.45], atol=1e-12)
    np.testing.assert_allclose(fitted(p_ba), np.mean([1, 1, 0.4, 0.7, 0]), atol=1e-12)


def test_contextual_and_batch_move_their_mean_to_one_half():
    contextual = fit_recalibration("contextual", [0.5], [0.5], [1], [0.7, 0.8, 0.9])
    assert contextual(np.array(0.8)) == pytest.approx(0.5)
    batch = fit_recalibration("batch", [0.9, 0.7], [0.8, 0.8], [1, 0])
    assert batch(np.array(0.8)) == pytest.approx(0.5)
    assert batch(np.array(0.9)) == pytest.approx(sigmoid(logit(0.9) - logit(0.8)))


def test_exact_zero_and_one_are_clipped_not_infinite():
    for kind in RECALIBRATIONS:
        fitted = fit_recalibration(kind, [0.0, 1.0, 1.0], [1.0, 0.0, 0.5], [0, 1, 0], [0.0, 1.0])
        assert np.isfinite(fitted(np.array([0.0, 0.5, 1.0]))).all(), kind


def test_a_judge_that_is_always_right_has_a_finite_map():
    p, labels = np.array([0.2, 0.9, 0.8]), np.array([0.0, 1.0, 1.0])
    for fit in (fit_temperature, fit_odd_temperature, fit_platt):
        fitted = fit(p, 1 - p, labels)
        assert 0 < fitted.slope <= 50 + 1e-6


def test_one_half_to_everything_stays():
    half, labels = np.full(4, 0.5), np.array([0, 1, 1, 1.0])
    for kind in RECALIBRATIONS:
        np.testing.assert_allclose(fit_recalibration(kind, half, half, labels, half)(half), 0.5, atol=1e-12)


def test_saved_and_loaded():
    _, labels, p_ab, p_ba = distorted(0.5, n=500)
    for kind in RECALIBRATIONS:
        fitted = fit_recalibration(kind, p_ab, p_ba, labels, [0.6, 0.7])
        assert fitted.kind == kind
        assert str(fitted)
        again = from_dict(json.loads(json.dumps(asdict(fitted))))
        np.testing.assert_array_equal(again(p_ab), fitted(p_ab))


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        ({"kind": "magic"}, "expected intercept, slope and a kind among"),
        ("temperature", "no recalibration"),
        ({"kind": "platt", "slope": 1.0}, "expected intercept, slope and a kind"),
        ({"kind": "platt", "slope": float("nan"), "intercept": 0}, "finite"),
        ({"kind": "platt", "slope": "1", "intercept": 0}, "finite"),
        ({"kind": "isotonic", "answers": [0.1, 0.5], "values": [0.9, 0.2]}, "expected ascending"),
        ({"kind": "isotonic", "answers": [0.1, 0.5], "values": [0.9]}, "length"),
        ({"kind": "isotonic", "answers": [0.1, 1.5], "values": [0.1, 0.9]}, "1.5"),
    ],
)
def test_what_is_no_recalibration_is_refused(saved, message):
    with pytest.raises(UserError, match=message):
        from_dict(saved)


def test_bad_arguments():
    with pytest.raises(ValueError, match="unknown recalibration 'magic'"):
        fit_recalibration("magic", [0.5], [0.5], [1])
    with pytest.raises(ValueError, match="content-free"):
        fit_recalibration("contextual", [0.5], [0.5], [1])
    with pytest.raises(ValueError, match="labels has length 2"):
        fit_temperature([0.5], [0.5], [1, 0])
    with pytest.raises(ValueError, match="NaN"):
        fit_platt([np.nan], [0.5], [1])


def test_content_free_pairs_have_identical_responses():
    assert [pair.prompt for pair in content_free_pairs()] == list(CONTENT_FREE)
    assert all(pair.response_a == pair.response_b for pair in content_free_pairs())


def test_monotone_map_is_constant_beyond_its_ends():
    assert (str(MonotoneMap((0.2, 0.6), (0.1, 0.9))), str(MonotoneMap((0.2,), (0.5,)))) == ("2 steps", "1 step")
    np.testing.assert_allclose(MonotoneMap((0.2, 0.6), (0.1, 0.9))(np.array([0.0, 0.4, 1.0])), [0.1, 0.5, 0.9])


def test_isotonic_equals_scikit_learns():
    from sklearn.isotonic import IsotonicRegression

    rng = np.random.default_rng(0)
    p = rng.random(400).round(2)
    labels = rng.random(400) < p**2
    fitted = fit_isotonic(p, 1 - p, labels.astype(float))
    answers, targets = np.concatenate([p, 1 - p]), np.concatenate([labels, 1 - labels])
    theirs = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(answers, targets)
    grid = np.linspace(0, 1, 301)
    np.testing.assert_allclose(fitted(grid), theirs.predict(grid), atol=1e-9)
