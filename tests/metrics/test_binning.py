from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autorater.metrics.binning import bin_indices


@pytest.mark.parametrize("n_bins", [1, 2, 4, 5, 10, 20, 25, 50, 100])
def test_every_hundredth_lands_in_its_right_closed_bin(n_bins):
    hundredths = np.arange(101)
    exact = [max(0, -(-Fraction(int(k), 100) * n_bins // 1) - 1) for k in hundredths]
    assert bin_indices(hundredths / 100, n_bins, "uniform").tolist() == exact


def test_the_edge_table_of_ten_bins():
    tenths = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    assert bin_indices(np.array(tenths), 10, "uniform").tolist() == [0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9]


def test_arithmetic_noise_does_not_move_an_answer():
    noisy = np.array([0.1 * 3, 0.1 + 0.2, 1 - 0.7, 0.3, np.nextafter(0.3, 0), np.nextafter(0.3, 1)])
    assert np.unique(noisy).size > 1
    for strategy in ("uniform", "quantile", "distinct"):
        assert np.unique(bin_indices(noisy, 10, strategy)).size == 1
    assert bin_indices(noisy, 10, "uniform")[0] == 2


def test_just_past_an_edge_is_the_next_bin():
    assert bin_indices(np.array([0.3, 0.3 + 1e-8, 1e-8, 1 - 1e-8]), 10, "uniform").tolist() == [2, 3, 0, 9]


answers = st.lists(st.integers(0, 20).map(lambda k: k / 20), min_size=1, max_size=80).map(np.array)


@given(answers, st.integers(1, 12))
def test_quantile_bins_keep_ties_together_and_ascend(probabilities, n_bins):
    bins = bin_indices(probabilities, n_bins, "quantile")
    assert bins.min() == 0
    assert bins.max() < n_bins
    for value in np.unique(probabilities):
        assert np.unique(bins[probabilities == value]).size == 1
    assert (np.diff(bins[np.argsort(probabilities)]) >= 0).all()


@given(st.integers(1, 8), st.integers(1, 10))
def test_quantile_bins_of_distinct_values_have_equal_mass(per_bin, n_bins):
    probabilities = np.random.default_rng(0).permutation(per_bin * n_bins) / 100
    assert np.bincount(bin_indices(probabilities, n_bins, "quantile")).tolist() == [per_bin] * n_bins


@given(answers, st.integers(1, 12), st.integers(2, 4))
def test_duplicating_all_rows_changes_no_bin(probabilities, n_bins, copies):
    for strategy in ("uniform", "quantile", "distinct"):
        once = bin_indices(probabilities, n_bins, strategy)
        assert np.array_equal(bin_indices(np.tile(probabilities, copies), n_bins, strategy), np.tile(once, copies))


def test_distinct_bins_are_the_distinct_values():
    assert bin_indices(np.array([0.9, 0.1, 0.9, 0.5]), 3, "distinct").tolist() == [2, 0, 2, 1]
