"""Pictures of many ways to read judges at once: their ranking, calibration against sharpness, groups of pairs.

As in `plots`: `prepare_…` computes and returns plain arrays, `plot_…` draws them on given axes, `…_figure` puts them
together. What is shown of a single method (reliability, order swap) is drawn there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from autorater.metrics.groups import GroupMetrics
from autorater.report.plots import blank_figure
from autorater.report.text import visible_line

if TYPE_CHECKING:
    from autorater.evaluation.judge import Evaluation

# Okabe and Ito's, told apart by all; the yellow that does not show on white is left out
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_WIDTH, _ROW = 10.0, 0.235  # inches
_GREY = "#6E6E6E"


def prepare_ranking(evaluations: Sequence[Evaluation], key: str) -> dict[str, np.ndarray]:
    """A metric of several evaluations with its interval.

    Args:
        evaluations: R of them.
        key: The metric.

    Returns:
        `value`, `low`, `high` and `floor` (what a perfect judge would show), shape (R,) each; NaN where there is none.
    """
    names = {"value": key, "low": f"{key}_low", "high": f"{key}_high", "floor": f"{key}_noise_floor"}
    return {
        column: np.array([evaluation.metrics.get(name, np.nan) for evaluation in evaluations])
        for column, name in names.items()
    }


def plot_ranking(axes: Axes, prepared: Mapping[str, np.ndarray], colors: Sequence[str], label: str) -> None:
    """Draws what `prepare_ranking` returned, the first row on top; a line is the interval, a tick the noise floor."""
    rows = np.arange(len(prepared["value"]))
    axes.hlines(rows, prepared["low"], prepared["high"], colors=colors, linewidth=2, alpha=0.55)
    axes.scatter(prepared["value"], rows, s=26, c=colors, zorder=3)
    if not np.isnan(prepared["floor"]).all():
        axes.scatter(prepared["floor"], rows, s=42, marker="|", color=_GREY, zorder=2, label="a perfect judge")
        axes.legend(loc="lower right", fontsize=8, framealpha=0.9)
    axes.set_xlabel(label, fontsize=10)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(left=0)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)


def ranking_figure(
    names: Sequence[str], colors: Sequence[str], evaluations: Sequence[Evaluation], keys: Mapping[str, str]
) -> Figure:
    """One row an evaluation, one panel a metric.

    Args:
        names: Of the rows.
        colors: Of the rows.
        evaluations: As many.
        keys: Metrics and what to call them.
    """
    figure = blank_figure((_WIDTH, 0.9 + _ROW * len(names)))
    panels = figure.subplots(1, len(keys), sharey=True, squeeze=False)[0]
    for axes, (key, label) in zip(panels, keys.items(), strict=True):
        plot_ranking(axes, prepare_ranking(evaluations, key), colors, label)
    panels[0].set_yticks(np.arange(len(names)), [visible_line(name, 60) for name in names], fontsize=8)
    return figure


def prepare_tradeoff(evaluations: Sequence[Evaluation]) -> dict[str, np.ndarray]:
    """Calibration and sharpness of several evaluations: `sharpness` (variance of the answers) and `ece`, (R,) each."""
    return {key: np.array([e.metrics[key] for e in evaluations]) for key in ("sharpness", "ece")}


def plot_tradeoff(axes: Axes, prepared: Mapping[str, np.ndarray], colors: Sequence[str]) -> None:
    """Draws what `prepare_tradeoff` returned: sharp and calibrated is in the corner on the lower right."""
    axes.scatter(prepared["sharpness"], prepared["ece"], s=42, c=colors, alpha=0.75, linewidths=0)
    axes.set_xlabel("sharpness: variance of the answers", fontsize=10)
    axes.set_ylabel("calibration error (ECE)", fontsize=10)
    axes.set_xlim(left=-0.03 * max(prepared["sharpness"].max(), 1e-3))
    axes.set_ylim(bottom=-0.03 * max(prepared["ece"].max(), 1e-3))
    axes.grid(color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)


def tradeoff_figure(evaluations: Sequence[Evaluation], colors: Sequence[str], legend: Mapping[str, str]) -> Figure:
    """Calibration against sharpness, one dot an evaluation.

    Args:
        evaluations: R of them.
        colors: Of the dots.
        legend: Names of methods and their colours.
    """
    figure = blank_figure((_WIDTH, 4.4))
    axes = figure.add_subplot()
    plot_tradeoff(axes, prepare_tradeoff(evaluations), colors)
    for name, color in legend.items():
        axes.scatter([], [], s=42, color=color, label=visible_line(name, 60))
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=9, frameon=False)
    return figure


def prepare_groups(groups: Sequence[GroupMetrics], n_shown: int = 12) -> dict[str, np.ndarray]:
    """Calibration error by group, the worst first.

    Args:
        groups: As `group_metrics` gives them.
        n_shown: Groups shown; the rest, at the end, is left out.

    Returns:
        `name`, `n_pairs`, `value`, `low`, `high` and `floor` (NaN where there is none), shape (G,) each.
    """
    shown = groups[:n_shown]
    names = {"value": "ece", "low": "ece_low", "high": "ece_high", "floor": "ece_noise_floor"}
    columns = {
        column: np.array([group.metrics.get(name, np.nan) for group in shown]) for column, name in names.items()
    }
    return {
        "name": np.array([group.name for group in shown]),
        "n_pairs": np.array([group.n_pairs for group in shown]),
    } | columns


def plot_groups(axes: Axes, prepared: Mapping[str, np.ndarray], title: str) -> None:
    """Draws what `prepare_groups` returned as bars with intervals; a tick is what a perfect judge would show there."""
    rows = np.arange(len(prepared["name"]))
    axes.barh(rows, prepared["value"], height=0.62, color=COLORS[0], alpha=0.75)
    axes.hlines(rows, prepared["low"], prepared["high"], colors="#333333", linewidth=1.2)
    axes.scatter(prepared["floor"], rows, s=110, marker="|", color=COLORS[1], zorder=3, label="a perfect judge")
    counted = zip(prepared["name"], prepared["n_pairs"], strict=True)
    axes.set_yticks(rows, [f"{visible_line(name, 44)} ({n:,})" for name, n in counted], fontsize=8, parse_math=False)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(left=0)
    axes.set_title(title, fontsize=11, fontweight="bold", loc="left", parse_math=False)
    axes.grid(axis="x", color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)


def groups_figure(groups: Mapping[str, Sequence[GroupMetrics]]) -> Figure:
    """Calibration error by group, one panel a kind of groups (topic, models, length), one below the other."""
    prepared = {kind: prepare_groups(members) for kind, members in groups.items()}
    heights = [0.7 + _ROW * len(p["name"]) for p in prepared.values()]
    figure = blank_figure((_WIDTH, 0.5 + sum(heights)))
    panels = figure.subplots(len(prepared), 1, squeeze=False, sharex=True, height_ratios=heights)[:, 0]
    for axes, (kind, columns) in zip(panels, prepared.items(), strict=True):
        plot_groups(axes, columns, f"by {kind}")
    panels[-1].set_xlabel("calibration error (ECE)", fontsize=10)
    panels[-1].legend(loc="lower right", fontsize=8, framealpha=0.9)
    return figure
