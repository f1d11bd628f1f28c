import numpy as np
import pytest

from autorater.metrics.position_strata import deviation_by_length, deviation_by_margin


def test_by_margin():
    strata = deviation_by_margin(np.array([0.9, 0.6, 0.5, 1.0]), np.array([0.1, 0.6, 0.5, 0.2]))
    assert [(s.low, s.high, s.n_pairs) for s in strata] == [(0.0, 0.1, 2), (0.3, 0.4, 2)]
    assert strata[0].deviation_abs == pytest.approx(0.1)
    assert strata[0].consistency == 0.5


def test_by_length():
    strata = deviation_by_length(
        np.full(4, 0.6), np.full(4, 0.5), np.array([10, 10, 30, 1]), np.array([10, 11, 10, 1000])
    )
    assert [(s.low, s.high, s.n_pairs) for s in strata] == [(1.0, 1.1, 2), (2.0, 4.0, 1), (4.0, float("inf"), 1)]
