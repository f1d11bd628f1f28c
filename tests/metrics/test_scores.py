import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autorater.metrics.scores import brier_scores, log_scores, squared_errors

inside = st.floats(0.001, 0.999)


@pytest.mark.parametrize("score", [brier_scores, log_scores])
@given(probability=inside, label=st.floats(0, 1))
def test_a_dense_label_is_the_mean_over_its_votes(score, probability, label):
    p = np.array([probability])
    over_votes = label * score(p, np.ones(1)) + (1 - label) * score(p, np.zeros(1))
    assert score(p, np.array([label])) == pytest.approx(over_votes, abs=1e-12)


@pytest.mark.parametrize("score", [brier_scores, log_scores, squared_errors])
@given(probability=inside, label=inside)
def test_proper(score, probability, label):
    label = np.array([label])
    assert score(label, label) <= score(np.array([probability]), label) + 1e-12


def test_by_hand():
    p, y = np.array([0.8, 0.8, 0.8, 0.0]), np.array([1.0, 0.0, 0.5, 1.0])
    assert brier_scores(p, y) == pytest.approx([0.04, 0.64, 0.34, 1])
    assert squared_errors(p, y) == pytest.approx([0.04, 0.64, 0.09, 1])
    expected = [-np.log(0.8), -np.log(0.2), -np.log(0.4), -np.log(1e-3)]
    assert log_scores(p, y) == pytest.approx(expected)
