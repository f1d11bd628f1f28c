"""Pictures of an answer, one each, and its HTML page: win rates, share automated against risk, changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from autorater.data.atomic import write_text
from autorater.metrics.gate import BETTER, HIGHER_IS_BETTER, UNCLEAR, WORSE, Change
from autorater.report.plots import BLUE, GREY, ORANGE, blank_figure, grid
from autorater.report.rendering import data_uri, png, render
from autorater.report.tables import settings_rows

_WIDTH = 5.2  # inches; text of 11 points is legible on a phone


def win_rate_figure(rates: Mapping[str, Mapping[str, float]]) -> Figure:
    """Win rate of every system with its interval: corrected by the judge, votes alone, and the judge alone.

    Args:
        rates: Results of `estimate_win_rate` by name, from the top.
    """
    figure = blank_figure((_WIDTH, 1.7 + 0.7 * len(rates)))
    axes = figure.subplots()
    styles = (("", "votes and judge", BLUE, "o"), ("votes_only_", "votes alone", GREY, "s"))
    for offset, (prefix, label, color, marker) in zip((0.14, -0.14), styles, strict=True):
        value, low, high = (
            np.array([r[f"{prefix}{end}"] for r in rates.values()]) for end in ("value", "low", "high")
        )
        y = offset - np.arange(len(rates))
        bars = {"fmt": marker, "color": color, "markersize": 6, "linewidth": 2.4 if not prefix else 1.4, "capsize": 3}
        axes.errorbar(value, y, xerr=[value - low, high - value], label=label, **bars)
    judged = [rate["judge_only_value"] for rate in rates.values()]
    axes.scatter(judged, -np.arange(len(rates)), marker="x", color=ORANGE, s=34, label="judge alone", zorder=3)
    axes.axvline(0.5, color=GREY, linewidth=1, linestyle="--", zorder=0)
    names = [name if len(name) <= 20 else f"{name[:19]}…" for name in rates]
    axes.set_yticks(-np.arange(len(rates)), names, fontsize=11, parse_math=False)
    axes.set(xlim=(-0.01, 1.01), ylim=(0.6 - len(rates), 0.6))
    axes.set_xlabel("win rate by people's votes, 0 to 1", fontsize=11)
    _legend_below(figure, axes)
    grid(axes, "x")
    return figure


def deferral_figure(shares: np.ndarray, risks: np.ndarray, alpha: float, share: float) -> Figure:
    """Disagreement with the majority against the share of pairs left to the judge.

    Args:
        shares, risks: As from `risk_curve`.
        alpha: The highest acceptable rate.
        share: Share of pairs that may stand; 0 if none may.
    """
    figure = blank_figure((_WIDTH, 4.2))
    axes = figure.subplots()
    axes.step(shares, risks, where="pre", color=BLUE, linewidth=1.8, label="measured")
    axes.axhline(alpha, color=ORANGE, linewidth=1.4, linestyle="--", label=f"accepted: {alpha:g}")
    if share:
        axes.axvspan(0, share, color=BLUE, alpha=0.1, linewidth=0, label=f"may stand: {share:.0%}")
    highest = max(2 * alpha, 1.1 * risks[shares >= 0.05].max())
    axes.set(xlim=(0, 1), ylim=(-0.02 * highest, highest))  # below 0: a curve of zeros is not on the axis
    axes.set_xlabel("share of pairs left to the judge, the clearest first", fontsize=11)
    axes.set_ylabel("disagreement with the majority", fontsize=11)
    _legend_below(figure, axes)
    grid(axes)
    return figure


def gate_figure(changes: Sequence[Change], labels: Sequence[str]) -> Figure:
    """Change of every metric with its interval, drawn so that the right is better.

    Args:
        changes: Results of `compare_with_baseline`, from the top.
        labels: Their names.
    """
    figure = blank_figure((_WIDTH, 1.5 + 0.6 * len(changes)))
    axes = figure.subplots()
    colors = {WORSE: ORANGE, BETTER: BLUE, UNCLEAR: GREY}
    for y, change in enumerate(changes):
        sign = 1 if HIGHER_IS_BETTER[change.metric] else -1
        half = (change.high - change.low) / 2
        style = {"fmt": "o", "markersize": 6, "linewidth": 2.2, "capsize": 3, "color": colors[change.verdict]}
        axes.errorbar(sign * change.change, -y, xerr=half, **style)
        axes.annotate(change.verdict, (sign * change.change, -y), (0, 7), textcoords="offset points", ha="center")
    axes.axvline(0, color=GREY, linewidth=1, linestyle="--", zorder=0)
    axes.set_yticks(-np.arange(len(changes)), labels, fontsize=11)
    axes.set_ylim(0.6 - len(changes), 0.6)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel("← worse    change    better →", fontsize=11)
    grid(axes, "x")
    return figure


def _legend_below(figure: Figure, axes: Axes) -> None:
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=10, frameon=False)


def write_page(
    path: Path,
    title: str,
    answer: str,
    figure: Figure,
    caption: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    settings: Mapping[str, object],
) -> None:
    """Writes one HTML file: the answer in a sentence, a picture, a table, the settings."""
    page = render(
        "decision.html.j2",
        title=title,
        answer=answer,
        picture=data_uri(png(figure)),
        caption=caption,
        header=header,
        rows=rows,
        settings=settings_rows(settings),
    )
    write_text(path, page)
