"""Figures of an audit: the answers for both presentations against each other, and the distribution of the deviation.

For a judge that states only verdicts, a table of the winners in both presentations replaces the scatter plot.
"""

from __future__ import annotations

from textwrap import fill

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from autorater.metrics.agreement import verdicts
from autorater.metrics.position_audit import only_verdicts
from autorater.report.glossary import GLOSSARY
from autorater.report.plots import BLUE, GREY, ORANGE, blank_figure, grid, plot_order_swap, prepare_order_swap

_BINS = 41  # odd: one bin is centred at 0
_OUTCOMES = ("A", "tie", "B")
_TITLE = {"fontsize": 13, "fontweight": "bold", "loc": "left"}


def prepare_deviations(p_ab: ArrayLike, p_ba: ArrayLike) -> dict[str, np.ndarray]:
    """Histogram of p_ab + p_ba − 1, shape (N,), over [−1, 1]: `edges` (42,), `share` (41,) of pairs; `mean`."""
    deviation = np.asarray(p_ab) + np.asarray(p_ba) - 1
    counts, edges = np.histogram(deviation.round(9), bins=_BINS, range=(-1, 1))
    return {"edges": edges, "share": counts / counts.sum(), "mean": deviation.mean()}


def plot_deviations(axes: Axes, prepared: dict[str, np.ndarray], probe: str) -> None:
    """Draws the result of `prepare_deviations`."""
    words = GLOSSARY["probes"][probe]
    axes.stairs(prepared["share"], prepared["edges"], fill=True, color=BLUE, alpha=0.85)
    axes.axvline(0, color=GREY, linewidth=1, linestyle="--")
    axes.axvline(prepared["mean"], color=ORANGE, linewidth=1.6, label=f"mean {prepared['mean']:+.3f}")
    axes.set_title("Symmetry deviation", **_TITLE)
    ends = (f"−1: favours {words['other']}", f"+1: favours {words['favoured']}")
    axes.set_xlabel("\n".join(fill(end, 48) for end in ends), fontsize=10)
    axes.set_ylabel("fraction of pairs", fontsize=10)
    grid(axes)
    axes.legend(fontsize=9)


def prepare_winners(p_ab: ArrayLike, p_ba: ArrayLike) -> dict[str, np.ndarray]:
    """`counts` (3, 3): pairs by winner (A, tie, B) in the second presentation (rows) and in the first (columns)."""
    first = verdicts(np.asarray(p_ab)).astype(int) + 1
    second = 1 - verdicts(np.asarray(p_ba)).astype(int)
    return {"counts": np.bincount(3 * second + first, minlength=9).reshape(3, 3)}


def plot_winners(axes: Axes, prepared: dict[str, np.ndarray], probe: str) -> None:
    """Draws the result of `prepare_winners`."""
    words = GLOSSARY["probes"][probe]
    first, second = words["presentations"]
    counts = prepared["counts"]
    axes.imshow(counts / counts.sum(), cmap="Blues", vmin=0, vmax=1, origin="lower")
    for (row, column), count in np.ndenumerate(counts):
        share = count / counts.sum()
        color = "white" if share > 0.5 else "black"
        axes.text(column, row, f"{count:,}\n{100 * share:.1f} %", ha="center", va="center", color=color)
    axes.set_xticks(range(3), _OUTCOMES)
    axes.set_yticks(range(3), _OUTCOMES)
    axes.set_title("Winner in both presentations", **_TITLE)
    axes.set_xlabel(f"winner when {first}", fontsize=10)
    axes.set_ylabel(f"winner when {second}", fontsize=10)
    style = {"xycoords": "axes fraction", "fontsize": 9}
    favoured, other = (fill(f"favours {words[side]}", 32) for side in ("favoured", "other"))
    axes.annotate(other, (0.02, 0.98), va="top", **style)
    axes.annotate(favoured, (0.98, 0.02), ha="right", va="bottom", **style)


def audit_figure(p_ab: ArrayLike, p_ba: ArrayLike, probe: str) -> Figure:
    """Both plots of a probe side by side."""
    figure = blank_figure()
    left, right = figure.subplots(1, 2)
    if only_verdicts(p_ab, p_ba):
        plot_winners(left, prepare_winners(p_ab, p_ba), probe)
    else:
        plot_order_swap(left, prepare_order_swap(p_ab, p_ba), "Both presentations", probe=probe)
    plot_deviations(right, prepare_deviations(p_ab, p_ba), probe)
    return figure
