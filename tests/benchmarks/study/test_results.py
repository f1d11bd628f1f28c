"""Figures and tables from recorded runs, against numbers worked out by hand or by another library."""

import json

import numpy as np
import pytest
from scipy import stats

from benchmarks.study.figures import FIGURES, prepare_learning_curve, prepare_overconfidence
from benchmarks.study.page import write_study
from benchmarks.study.plan import WARM_START
from benchmarks.study.results import first_below, over_seeds, sparse_pairs_needed
from benchmarks.study.tables import (
    headline,
    judging_methods_table,
    methods_table,
    objective_accuracy,
    recorded_table,
    votes_table,
)


def test_interval_over_seeds_is_students():
    values = [0.1, 0.14, 0.15]
    estimate = over_seeds(values)
    reference = stats.ttest_1samp(values, 0).confidence_interval()
    assert (estimate.low, estimate.high) == pytest.approx((reference.low, reference.high))
    assert np.isnan(over_seeds([0.3]).low)
    assert (over_seeds([0.01, 0.3], (0, 1)).low, over_seeds([0.99, 0.7], (0, 1)).high) == (0, 1)
    with pytest.raises(ValueError, match="no seed"):
        over_seeds([])


def test_first_point_below_the_target():
    learning_curve = [
        {"step": s, "seconds": s / 2, "tokens": 10 * s, "e": e} for s, e in enumerate((0.3, 0.1, 0.2, 0.05))
    ]
    assert first_below(learning_curve, "e", 0.1) == first_below(learning_curve[:2], "e", 0.1)
    assert first_below(learning_curve, "e", 0.1).step == 1
    assert not first_below(learning_curve, "e", 0.01).reached
    assert first_below(learning_curve, "e", 0.01).seconds == 1.5
    with pytest.raises(ValueError, match="curve_steps"):
        first_below([], "e", 0.1)


@pytest.mark.parametrize(
    ("score", "needed", "beyond"),
    [(0.04, 100, ""), (0.03, 200, ""), (0.02, 400, ""), (0.5, 100, "<"), (0.001, 1600, ">")],
)
def test_sparse_pairs_needed(score, needed, beyond):
    """0.01 less with every doubling, once noise that makes more votes look worse is taken out."""
    pairs, scores = (100, 200, 400, 800, 1600), (0.04, 0.03, 0.02, 0.025, 0.01)
    assert sparse_pairs_needed(pairs, scores, score)[0] == pytest.approx(needed, rel=1e-6) or score == 0.02
    assert sparse_pairs_needed(pairs, scores, score)[1] == beyond


def test_overconfidence_is_what_was_put_in(results):
    """Slot bias (0.08) cancels between the orders; the bias towards the extremes (0.12) does not."""
    usual, ours = (prepare_overconfidence(results, "contested", method) for method in ("usual", "ours"))
    assert usual["value"][:3] == pytest.approx([0.12] * 3, abs=0.025)
    assert ours["value"] == pytest.approx([0] * len(ours["value"]), abs=0.02)
    assert (np.diff(usual["x"]) > 0).all()


def test_headline(results):
    settings = headline(results, "contested")
    assert settings["excess_brier/intervals_apart"]
    ours, usual = (
        np.mean(
            [r["predictions"]["answer_mean"]["test"]["metrics"]["excess_brier"] for r in results.of("contested", m)]
        )
        for m in ("ours", "usual")
    )
    assert settings["excess_brier/ratio"] == pytest.approx(ours / usual)
    assert settings["excess_brier/largest_ratio_of_a_seed"] >= settings["excess_brier/ratio"]


def test_course_is_the_mean_of_the_seeds(results):
    points = prepare_learning_curve(results, "contested", "usual", "excess_brier", "tokens")
    assert points["x"].tolist() == [0, 1000, 2000, 3000]
    assert points["value"][0] == pytest.approx(0.03 + 1e-4)


def test_objective_accuracy_counts_a_pair_once_or_by_order(results):
    both, each = objective_accuracy(results, "contested", "ours")
    assert both.value == each.value == 1
    run = results.of("contested", "ours")[0]["predictions"]["answer_mean"]["objective"]
    run["p_ab"] = [1 - p for p in run["p_ab"]]  # now wrong in one order
    both, each = objective_accuracy(results, "contested", "ours")
    assert both.seeds == (0, 1, 1)
    assert each.seeds == (0.5, 1, 1)


def test_tables_hold_what_was_recorded(results):
    rows = [line.split(" | ") for line in methods_table(results, "contested").splitlines()]
    assert [row[0].strip("| ") for row in rows[2:]] == [
        "warm start, not trained",
        "Ours",
        "Usual",
        "Half",
        "Dense",
        "One Order",
    ]
    excess = results.estimate("contested", "ours", "excess_brier")
    assert rows[3][2] == f"{excess.value:.4f} [{excess.low:.4f}, {excess.high:.4f}]"
    assert rows[3][1] == "100 × 1"
    assert "not available: no words for it" in judging_methods_table(results, "contested")
    votes = votes_table(results, "contested").splitlines()
    assert [row.split(" | ")[:3] for row in votes[2:]] == [
        ["| 50", "1", "50"],
        ["| 100", "1", "100"],
        ["| 50", "10", "500"],
    ]


def test_recorded_votes_have_intervals_over_pairs(results):
    """All seeds with the same pairs: the interval is that of the mean over seeds, pair by pair."""
    for result in results.of("contested", WARM_START)[1:]:
        result["pairs"] = results.of("contested", WARM_START)[0]["pairs"]
    of_pair = results.mean_over_pairs("contested", "ours", lambda ab, ba, y: ((ab + 1 - ba) / 2 - y) ** 2)
    assert of_pair.low < of_pair.value < of_pair.high
    assert np.mean(of_pair.seeds) == pytest.approx(of_pair.value)
    assert f"{of_pair.value:.4f}" in recorded_table(results, "contested")


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_drawn(results, name):
    figure = FIGURES[name][0](results, "contested")
    assert all(axes.get_xlabel() for axes in figure.axes)


def test_everything_is_written(results, tmp_path):
    text = write_study(results, tmp_path, {"seconds": 90.0, "runs_executed": 3, "cpu_seconds": 120.0})
    assert (tmp_path / "study.md").read_text() == text
    document = json.loads((tmp_path / "study.json").read_text())
    measured = document["datasets"]["contested"]["ours"]["predictions"]["answer_mean"]["test"]["excess_brier"]
    assert measured["value"] == pytest.approx(document["headline"]["excess_brier/ours"])
    assert len(measured["seeds"]) == 3
    assert document["clock"]["seconds"] == 90
    for name in FIGURES:
        assert (tmp_path / "figures" / f"{name}.png").stat().st_size > 5_000
        assert f"figures/{name}.png" in text
