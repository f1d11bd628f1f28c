import numpy as np
import pytest

from autorater.metrics.repetition import any_slot_test, repeated_flip_rate, repetition_stability, slot_effect


def test_by_hand():
    answers = np.array([[0.9, 0.8, 0.2], [0.5, 0.5, 0.5], [0.1, 0.5, 0.9]])
    assert repetition_stability(answers) == pytest.approx((2 / 3 + 1 + 1 / 3) / 3)
    assert repeated_flip_rate(answers) == pytest.approx((2 / 3 + 0 + 1) / 3)


def test_slot_effect_takes_the_noise_out():
    draw = np.random.default_rng(0)
    effects = draw.normal(0, 0.1, (4000, 1))
    noisy = effects + draw.normal(0, 0.2, (4000, 3))
    assert slot_effect(noisy) == pytest.approx(0.1, abs=0.01)
    assert slot_effect(np.full((5, 2), 0.3)) == pytest.approx(0.3)
    assert slot_effect(np.array([[0.1, -0.1]])) == 0


def test_any_slot_test_rejects_as_often_as_it_says():
    draw = np.random.default_rng(0)
    p_values = [any_slot_test(*draw.random((2, 15, 2)), n_rounds=199, seed=i) for i in range(1000)]
    assert abs(np.mean(np.array(p_values) <= 0.05) - 0.05) < 4 * np.sqrt(0.05 * 0.95 / 1000)


def test_any_slot_test_sees_what_has_no_direction():
    first = np.tile([[0.3], [0.7]], (20, 2))
    assert any_slot_test(first, 1 - first) < 0.01
    assert any_slot_test(first, first) == 1
    many = np.random.default_rng(0).random((30, 7))
    assert any_slot_test(many, many[:, ::-1] + 0.8) < 0.01
