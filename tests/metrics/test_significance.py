from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from autorater.metrics import significance
from autorater.metrics.significance import any_slot_test, holm, sign_flip_test

hundredths = st.lists(st.integers(-100, 100).map(lambda k: k / 100), min_size=1, max_size=9)


@given(hundredths)
def test_sign_flip_test_counts_over_all_signs(deviations):
    sums = [
        abs(sum(s * abs(d) for s, d in zip(signs, deviations, strict=True)))
        for signs in product((1, -1), repeat=len(deviations))
    ]
    expected = np.mean([total >= abs(sum(deviations)) - 1e-9 for total in sums])
    assert sign_flip_test(np.array(deviations)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("n_first", "n_second", "n_ties"), [(52, 38, 7), (283, 21, 430), (1, 0, 0), (5, 5, 3)])
def test_verdicts_alone_are_mcnemar(n_first, n_second, n_ties):
    deviations = np.r_[-np.ones(n_first), np.ones(n_second), np.zeros(n_ties)]
    expected = binomtest(n_first, n_first + n_second).pvalue
    assert sign_flip_test(deviations) == pytest.approx(expected, rel=1e-9)


def test_sign_flip_test_without_deviations():
    assert sign_flip_test(np.zeros(5)) == 1


def test_the_normal_limit_meets_the_exact_test(monkeypatch):
    deviations = np.random.default_rng(0).normal(0.01, 0.2, 800)
    exact = sign_flip_test(deviations)
    monkeypatch.setattr(significance, "_MAX_OPERATIONS", 0)
    assert sign_flip_test(deviations) == pytest.approx(exact, abs=2e-3)


def test_sign_flip_test_has_its_level():
    draw = np.random.default_rng(1)
    rejected = [sign_flip_test(draw.standard_t(2, 60) * draw.gamma(1, 1, 60) / 20) < 0.05 for _ in range(2000)]
    assert abs(np.mean(rejected) - 0.05) < 4 * np.sqrt(0.05 * 0.95 / 2000)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1, 1]
    assert holm([]) == []


def test_any_slot_test_has_its_level(monkeypatch):
    monkeypatch.setattr(significance, "_ROUNDS", 199)
    draw = np.random.default_rng(0)
    p_values = [any_slot_test(*draw.random((2, 15, 2)), seed=i) for i in range(1000)]
    assert abs(np.mean(np.array(p_values) <= 0.05) - 0.05) < 4 * np.sqrt(0.05 * 0.95 / 1000)


def test_any_slot_test_detects_effects_without_a_direction():
    first = np.tile([[0.3], [0.7]], (20, 2))
    assert any_slot_test(first, 1 - first) < 0.01
    assert any_slot_test(first, first) == 1
    many = np.random.default_rng(0).random((30, 7))
    assert any_slot_test(many, many[:, ::-1] + 0.8) < 0.01
