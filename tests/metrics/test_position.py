import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autorater.metrics import position_bias
from autorater.metrics.position import logit_shifts, symmetrize

tenths = st.integers(0, 10).map(lambda k: k / 10)
reads = st.lists(st.tuples(tenths, tenths), min_size=1, max_size=40).map(lambda pairs: np.array(pairs).T)


def test_by_hand():
    # pair 1: B, then (order ba, second response is A) A loses: B again     d   0.0
    # pair 2: B, then A: always the second response                         d  +0.6
    # pair 3: A, then B: always the first response                          d  −0.4
    # pair 4: tie, then tie                                             d   0.0
    # pair 5: tie, then B: shown first                                  d  −0.4
    p_ab, p_ba = [0.8, 0.9, 0.3, 0.5, 0.5], [0.2, 0.7, 0.3, 0.5, 0.1]
    report = position_bias(p_ab, p_ba)
    assert report["consistency"] == pytest.approx(2 / 5)
    assert report["flip_rate"] == pytest.approx(3 / 5)
    assert report["symmetry_deviation_mean"] == pytest.approx(-0.2 / 5)
    assert report["symmetry_deviation_abs"] == pytest.approx(1.4 / 5)
    # verdicts: pair 1 second, first; pair 2 second, second; pair 3 first, first; pair 5 first
    assert report["first_slot_share"] == pytest.approx(4 / 7)
    assert report["sharpness_symmetrized"] == pytest.approx(np.var([0.8, 0.6, 0.5, 0.5, 0.7]))


def test_a_judge_that_always_prefers_the_second_response():
    report = position_bias([0.9, 0.9], [0.9, 0.9])
    assert report["consistency"] == 0
    assert report["first_slot_share"] == 0
    assert report["symmetry_deviation_mean"] == pytest.approx(0.8)
    assert report["sharpness_symmetrized"] == pytest.approx(0, abs=1e-15)


def test_ties_alone_have_no_first_slot_share():
    report = position_bias([0.5], [0.5])
    assert "first_slot_share" not in report
    assert report["consistency"] == 1


@given(reads)
def test_a_symmetric_judge_has_no_bias(data):
    p_ab, _ = data
    report = position_bias(p_ab, 1 - p_ab)
    assert report["consistency"] == 1
    assert report["symmetry_deviation_abs"] == pytest.approx(0, abs=1e-15)
    assert report.get("first_slot_share", 0.5) == 0.5


@given(reads)
def test_renaming_the_responses_changes_nothing(data):
    p_ab, p_ba = data
    assert position_bias(p_ba, p_ab) == pytest.approx(position_bias(p_ab, p_ba), abs=1e-12)


@given(reads)
def test_complementary_answers_reverse_the_sign(data):
    p_ab, p_ba = data
    there, back = position_bias(p_ab, p_ba), position_bias(1 - p_ab, 1 - p_ba)
    assert back["symmetry_deviation_mean"] == pytest.approx(-there["symmetry_deviation_mean"], abs=1e-12)
    assert back["consistency"] == there["consistency"]
    if "first_slot_share" in there:
        assert back["first_slot_share"] == pytest.approx(1 - there["first_slot_share"])


@given(reads, tenths)
def test_mean_error_of_the_orders_is_that_of_the_average_plus_a_quarter_of_the_square(data, label):
    p_ab, p_ba = data
    both = ((p_ab - label) ** 2 + (p_ba - (1 - label)) ** 2) / 2
    average = (symmetrize(p_ab, p_ba) - label) ** 2
    np.testing.assert_allclose(both, average + (p_ab + p_ba - 1) ** 2 / 4, atol=1e-12)


@given(reads)
def test_order_of_pairs_and_whole_copies_do_not_matter(data):
    report = position_bias(*data)
    assert position_bias(*data[:, ::-1]) == pytest.approx(report, abs=1e-12)
    assert position_bias(*np.tile(data, 3)) == pytest.approx(report, abs=1e-12)
    assert all(type(value) is float and np.isfinite(value) for value in report.values())


def test_logit_shifts_recover_a_constant_shift():
    merit = np.linspace(-3, 3, 41)
    p_ab, p_ba = (1 / (1 + np.exp(-(sign * merit + 0.7))) for sign in (1, -1))
    np.testing.assert_allclose(logit_shifts(p_ab, p_ba), 0.7, atol=1e-9)
    assert np.isfinite(logit_shifts(np.array([0.0, 1.0]), np.array([1.0, 1.0]))).all()
