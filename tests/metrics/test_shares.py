import numpy as np
import pytest

from autorater.metrics.shares import wilson_interval


@pytest.mark.parametrize(("hits", "n"), [(0, 7), (3, 10), (644, 734), (20, 20)])
def test_it_solves_the_score_equation(hits, n):
    """Wilson's bounds are the p at which the normal test of p just rejects."""
    for bound in wilson_interval(hits / n, n):
        if 0 < bound < 1:
            assert abs(hits / n - bound) / np.sqrt(bound * (1 - bound) / n) == pytest.approx(1.959964, rel=1e-6)


def test_against_scipy():
    stats = pytest.importorskip("scipy.stats")
    expected = stats.binomtest(644, 734).proportion_ci(method="wilson")
    assert wilson_interval(644 / 734, 734) == pytest.approx((expected.low, expected.high), rel=1e-6)


def test_a_unanimous_sample_still_has_a_width():
    low, high = wilson_interval(1.0, 20)
    assert high == 1
    assert low == pytest.approx(0.8389, abs=1e-4)
