import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import brentq

from autorater.metrics import calibration, calibration_metrics, expected_calibration_error


def smooth_error(probabilities, labels):
    return calibration.smooth_error(probabilities, labels, np.ones(labels.size))


def slow_smooth_ece(probabilities, labels, images=6):
    """Images of the Gaussian summed one by one, adaptive quadrature, bracketed root."""
    residuals = labels - probabilities
    shifts = 2 * np.arange(-images, images + 1)[:, None]
    centres = np.concatenate([shifts + probabilities, shifts - probabilities])

    def error(width):
        def density(t):
            kernel = np.exp(-(((t - centres) / width) ** 2) / 2) / (width * np.sqrt(2 * np.pi))
            return abs(np.mean(residuals * kernel.sum(axis=0)))

        return sum(quad(density, k / 20, (k + 1) / 20, limit=200, epsabs=1e-9)[0] for k in range(20))

    return brentq(lambda width: error(width) - width, 1e-3, 2, xtol=1e-8)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("decimals", [1, 2, 12])
def test_agrees_with_direct_integration(seed, decimals):
    generator = np.random.default_rng(seed)
    truth = generator.beta(0.6, 0.6, 60).round(decimals)
    labels = (generator.random(60) < truth) * 1.0
    probabilities = (0.5 + 1.5 * (truth - 0.5)).clip(0, 1)
    assert smooth_error(probabilities, labels) == pytest.approx(slow_smooth_ece(probabilities, labels), abs=2e-6)


def test_a_shift_of_all_answers_is_detected():
    """With p = 0.6 and a truth of 0.8, all residuals have one sign and no smoothing can cancel them."""
    assert smooth_error(np.full(10, 0.6), np.full(10, 0.8)) == pytest.approx(0.2, abs=1e-9)


def test_perfect_answers_have_no_error():
    answers = np.linspace(0, 1, 7)
    assert smooth_error(answers, answers) == 0


@pytest.mark.parametrize("answers", [[0.0, 1.0], [0.0, 0.0], [1.0, 1.0], [0.00005, 0.99995]])
def test_mass_at_the_ends_is_kept(answers):
    """Wrong by nearly one everywhere, with one sign at each end."""
    answers = np.array(answers)
    value = smooth_error(answers, 1 - answers.round())
    assert value == pytest.approx(slow_smooth_ece(answers, 1 - answers.round()), abs=2e-6)


def test_never_above_the_ece_of_distinct_answers():
    generator = np.random.default_rng(5)
    for _ in range(20):
        probabilities = generator.integers(0, 11, 50) / 10
        labels = generator.integers(0, 2, 50) * 1.0
        smooth = calibration_metrics(probabilities, labels)["smooth_ece"]
        assert smooth <= expected_calibration_error(probabilities, labels, strategy="distinct") + 1e-9


def test_a_tiny_shift_across_a_bin_edge_changes_little():
    """The case against bins: the binned error jumps from 0 to 1/2 when one answer moves by 1e-8."""
    labels = np.array([0.0, 1.0])
    below, above = np.array([0.5 - 1e-8, 0.5]), np.array([0.5 - 1e-8, 0.5 + 1e-8])
    assert expected_calibration_error(below, labels) < 1e-7 < 0.49 < expected_calibration_error(above, labels)
    assert smooth_error(above, labels) == pytest.approx(smooth_error(below, labels), abs=1e-5)
