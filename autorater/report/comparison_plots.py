"""Figures that compare judging methods: ranking, calibration against sharpness, calibration by group of pairs.

As in `plots`, `prepare_metric` computes arrays, and the figures only draw them.
"""

from collections.abc import Mapping, Sequence
from textwrap import fill

import numpy as np
from matplotlib.figure import Figure

from autorater.evaluation.judge import Evaluation
from autorater.metrics.groups import GroupMetrics
from autorater.report.plots import BLUE, GREY, ORANGE, blank_figure, grid
from autorater.report.text import visible_line

# Okabe and Ito: distinguishable by colour-blind readers; without their yellow, invisible on white
COLORS = (BLUE, ORANGE, "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_WIDTH, _ROW = 10.0, 0.3  # inches


def prepare_metric(measured: Sequence[Evaluation | GroupMetrics], key: str) -> dict[str, np.ndarray]:
    """`value`, `low`, `high` and `floor` (of a perfect judge) of a metric, (R,) each; NaN where a value is absent."""
    names = {"value": key, "low": f"{key}_low", "high": f"{key}_high", "floor": f"{key}_noise_floor"}
    return {column: np.array([m.metrics.get(name, np.nan) for m in measured]) for column, name in names.items()}


def ranking_figure(
    names: Sequence[str], colors: Sequence[str], evaluations: Sequence[Evaluation], keys: Mapping[str, str]
) -> Figure:
    """One row per evaluation, the first at the top; one panel per metric, from `keys` to labels.

    Lines are intervals, ticks noise floors. Names, colours and evaluations are of R rows.
    """
    figure, rows = blank_figure((_WIDTH, 0.9 + _ROW * len(names))), np.arange(len(names))
    panels = figure.subplots(1, len(keys), sharey=True, squeeze=False)[0]
    for axes, (key, label) in zip(panels, keys.items(), strict=True):
        prepared = prepare_metric(evaluations, key)
        axes.hlines(rows, prepared["low"], prepared["high"], colors=colors, linewidth=2, alpha=0.55)
        axes.scatter(prepared["value"], rows, s=26, c=colors, zorder=3)
        if not np.isnan(prepared["floor"]).all():
            axes.scatter(prepared["floor"], rows, s=42, marker="|", color=GREY, zorder=2, label="a perfect judge")
            axes.legend(loc="lower right", fontsize=8, framealpha=0.9)
        axes.set_xlabel(label, fontsize=10)
        axes.set(ylim=(len(rows) - 0.4, -0.6), xlim=(0, None))
        axes.tick_params(axis="y", length=0)
        grid(axes, "x")
    panels[0].set_yticks(rows, [fill(visible_line(name, 90), 48) for name in names], fontsize=8)
    return figure


def tradeoff_figure(evaluations: Sequence[Evaluation], colors: Sequence[str], legend: Mapping[str, str]) -> Figure:
    """Calibration error against sharpness, one dot per evaluation; sharp and calibrated is at the lower right.

    `colors` are those of the dots, `legend` has colours by name of the method.
    """
    figure = blank_figure((_WIDTH, 4.4))
    axes = figure.add_subplot()
    sharpness, ece = (prepare_metric(evaluations, key)["value"] for key in ("sharpness", "ece"))
    axes.scatter(sharpness, ece, s=42, c=colors, alpha=0.75, linewidths=0)
    axes.set_xlabel("sharpness: variance of the answers", fontsize=10)
    axes.set_ylabel("calibration error (ECE)", fontsize=10)
    axes.set(xlim=(-0.03 * max(sharpness.max(), 1e-3), None), ylim=(-0.03 * max(ece.max(), 1e-3), None))
    grid(axes)
    for name, color in legend.items():
        axes.scatter([], [], s=42, color=color, label=visible_line(name, 60))
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=9, frameon=False)
    return figure


def groups_figure(groups: Mapping[str, Sequence[GroupMetrics]]) -> Figure:
    """Calibration error of the 12 worst groups of each kind, one panel per kind; ticks are the ECE of a perfect judge.

    `groups` has groups by kind (topic, models, length), the worst first, as from `group_metrics`.
    """
    shown = {kind: members[:12] for kind, members in groups.items()}
    heights = [0.7 + _ROW * len(members) for members in shown.values()]
    figure = blank_figure((_WIDTH, 0.5 + sum(heights)))
    panels = figure.subplots(len(shown), 1, squeeze=False, sharex=True, height_ratios=heights)[:, 0]
    for axes, (kind, members) in zip(panels, shown.items(), strict=True):
        rows, prepared = np.arange(len(members)), prepare_metric(members, "ece")
        axes.barh(rows, prepared["value"], height=0.62, color=COLORS[0], alpha=0.75)
        axes.hlines(rows, prepared["low"], prepared["high"], colors="#333333", linewidth=1.2)
        axes.scatter(prepared["floor"], rows, s=110, marker="|", color=COLORS[1], zorder=3, label="a perfect judge")
        names = [f"{visible_line(group.name, 44)} ({group.n_pairs:,})" for group in members]
        axes.set_yticks(rows, names, fontsize=8, parse_math=False)
        axes.set(ylim=(len(rows) - 0.4, -0.6), xlim=(0, None))
        axes.set_title(f"by {kind}", fontsize=11, fontweight="bold", loc="left", parse_math=False)
        grid(axes, "x")
    panels[-1].set_xlabel("calibration error (ECE)", fontsize=10)
    panels[-1].legend(loc="lower right", fontsize=8, framealpha=0.9)
    return figure
