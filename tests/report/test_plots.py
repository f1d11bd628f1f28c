import io

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure

from autorater.metrics import expected_calibration_error
from autorater.report.plots import (
    before_and_after,
    order_swap_figure,
    plot_reliability,
    prepare_order_swap,
    prepare_reliability,
    reliability_figure,
)

pytestmark = pytest.mark.drawn


def test_reliability_by_hand():
    # right-closed: 0.1 is in the first bin, 0.9 in the ninth, 1.0 in the tenth
    prepared = prepare_reliability(
        [0.05, 0.1, 0.9, 0.9, 0.9, 0.9], [0, 1, 1, 0, 1, 0], truth=[0.1, 0.2, 0.7, 0.8, 0.9, 1]
    )
    np.testing.assert_allclose(prepared["probability"], [0.075, 0.9])
    np.testing.assert_allclose(prepared["label"], [0.5, 0.5])
    np.testing.assert_allclose(prepared["truth"], [0.15, 0.85])
    np.testing.assert_array_equal(prepared["count"], [2, 4])
    # Wilson for 2 of 4, z² = 3.8415: 1/2 ± 1.96 · sqrt(1/16 + 3.8415/64) / (1 + 3.8415/4)
    assert prepared["low"][1] == pytest.approx(0.15004, abs=1e-5)
    assert prepared["high"][1] == pytest.approx(0.84996, abs=1e-5)
    # twenty bins of 0.05: 0.05 in the first, 0.1 in the second, 0.9 in the eighteenth
    assert prepared["histogram"][[0, 1, 17]] == pytest.approx([1 / 6, 1 / 6, 4 / 6])
    assert prepared["histogram"].sum() == pytest.approx(1)


def test_no_truth_no_diamonds():
    assert "truth" not in prepare_reliability([0.2], [1])


def test_its_gaps_are_the_ece():
    generator = np.random.default_rng(0)
    p, y = generator.random(500).round(2), generator.integers(0, 4, 500) / 3
    prepared = prepare_reliability(p, y)
    gap = np.average(np.abs(prepared["label"] - prepared["probability"]), weights=prepared["count"])
    assert gap == pytest.approx(expected_calibration_error(p, y))


def test_intervals_contain_the_mean_vote():
    generator = np.random.default_rng(0)
    for labels in (np.zeros(50), np.ones(50), np.full(50, 0.5), generator.integers(0, 2, 50), generator.random(50)):
        prepared = prepare_reliability(generator.random(50), labels)
        assert (prepared["low"] <= prepared["label"]).all()
        assert (prepared["label"] <= prepared["high"]).all()
        assert (prepared["low"] >= 0).all()
        assert (prepared["high"] <= 1).all()


@pytest.mark.parametrize("n_votes", [1, 10])
def test_intervals_cover(n_votes):
    generator = np.random.default_rng(0)
    covered = []
    for _ in range(400):
        p = generator.uniform(0.2, 0.3, 60)
        truth = p**0.5  # as far off as any judge
        prepared = prepare_reliability(p, generator.binomial(n_votes, truth) / n_votes, truth)
        covered.append((prepared["low"] <= prepared["truth"]) & (prepared["truth"] <= prepared["high"]))
    assert 0.92 <= np.concatenate(covered).mean() <= 0.985


def test_many_votes_narrow_the_interval():
    p, share = np.full(100, 0.5), np.tile([0.4, 0.6], 50)
    single, dense = (prepare_reliability(p, labels) for labels in (np.tile([0.0, 1.0], 50), share))
    assert (dense["high"] - dense["low"])[0] < (single["high"] - single["low"])[0] / 3


def test_order_swap_by_hand():
    prepared = prepare_order_swap([0.9, 0.3], [0.7, 0.3])
    np.testing.assert_allclose(prepared["shown_second"], [0.9, 0.3])
    np.testing.assert_allclose(prepared["shown_first"], [0.3, 0.7])
    assert prepared["deviation_mean"] == pytest.approx(0.1)
    assert prepared["deviation_abs"] == pytest.approx(0.5)


def test_order_swap_thins_the_dots_and_not_the_numbers():
    p_ab = np.linspace(0, 1, 10_001)
    prepared = prepare_order_swap(p_ab, p_ab)
    assert len(prepared["shown_second"]) == len(prepared["shown_first"]) == 4_000
    assert prepared["deviation_abs"] == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize("prepare", [prepare_reliability, prepare_order_swap])
def test_wrong_numbers_are_refused(prepare):
    with pytest.raises(ValueError, match="is empty"):
        prepare([], [])
    with pytest.raises(ValueError, match="length"):
        prepare([0.5, 0.5], [1])
    with pytest.raises(ValueError, match="NaN"):
        prepare([0.5], [float("nan")])


def test_drawing_leaves_no_trace(judged):
    before = dict(mpl.rcParams)
    for figure in (reliability_figure(before_and_after(*judged)), order_swap_figure(before_and_after(*judged))):
        assert tuple(figure.get_size_inches()) == (10, 5.2)
        figure.canvas.draw()
    assert dict(mpl.rcParams) == before


def test_panels_have_titles_and_units(judged):
    for figure in (reliability_figure(before_and_after(*judged)), order_swap_figure(before_and_after(*judged))):
        titles = [axes.get_title(loc="left") for axes in figure.axes if axes.get_title(loc="left")]
        assert titles == ["Before training", "After training"]
    axis = reliability_figure(before_and_after(*judged)).axes[1].get_xlabel()
    assert axis == "answer: Pr[response shown second is better], 0 to 1"


def test_a_title_is_no_formula():
    figure = Figure()
    plot_reliability(tuple(figure.subplots(2)), prepare_reliability([0.5], [1]), "$\\frac{$", "blue", ["$x"])
    figure.savefig(io.BytesIO())
