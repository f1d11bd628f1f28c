"""Pictures of an audit: both readings of every pair against each other, and how the symmetry deviation is spread.

For a judge that gives only verdicts, a table of the winners in both orders takes the place of the dots.
"""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from autorater.metrics.agreement import verdicts
from autorater.metrics.position_audit import only_verdicts
from autorater.report.plots import DPI, plot_order_swap, prepare_order_swap

_COLOR, _GREY = "#0072B2", "#6E6E6E"
_BINS = 41  # odd: a bin around 0
_OUTCOMES = ("A", "tie", "B")


def prepare_deviations(p_ab: ArrayLike, p_ba: ArrayLike) -> dict[str, np.ndarray]:
    """Histogram of SD = p_ab + p_ba − 1 over [−1, 1]: `edges` (42,), `share` (41,) of pairs, and their `mean`.

    Args:
        p_ab, p_ba: shape (N,), Pr[second slot better] from order ab and from order ba.
    """
    deviation = np.asarray(p_ab) + np.asarray(p_ba) - 1
    counts, edges = np.histogram(deviation.round(9), bins=_BINS, range=(-1, 1))
    return {"edges": edges, "share": counts / counts.sum(), "mean": deviation.mean()}


def plot_deviations(axes: Axes, prepared: dict[str, np.ndarray]) -> None:
    """Draws what `prepare_deviations` returned."""
    axes.stairs(prepared["share"], prepared["edges"], fill=True, color=_COLOR, alpha=0.85)
    axes.axvline(0, color=_GREY, linewidth=1, linestyle="--")
    axes.axvline(prepared["mean"], color="#D55E00", linewidth=1.6, label=f"mean {prepared['mean']:+.3f}")
    axes.set_title("Symmetry deviation", fontsize=13, fontweight="bold", loc="left")
    axes.set_xlabel("SD: first slot favoured (−1) to second slot favoured (+1)", fontsize=10)
    axes.set_ylabel("share of pairs", fontsize=10)
    axes.grid(color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.legend(fontsize=9)


def prepare_winners(p_ab: ArrayLike, p_ba: ArrayLike) -> dict[str, np.ndarray]:
    """`counts` (3, 3): pairs by winner (A, tie, B) where B is shown first (rows) and where B is shown second."""
    shown_second = verdicts(np.asarray(p_ab)).astype(int) + 1
    shown_first = 1 - verdicts(np.asarray(p_ba)).astype(int)
    return {"counts": np.bincount(3 * shown_first + shown_second, minlength=9).reshape(3, 3)}


def plot_winners(axes: Axes, prepared: dict[str, np.ndarray]) -> None:
    """Draws what `prepare_winners` returned."""
    counts = prepared["counts"]
    axes.imshow(counts / counts.sum(), cmap="Blues", vmin=0, vmax=1, origin="lower")
    for row in range(3):
        for column in range(3):
            share = counts[row, column] / counts.sum()
            text = f"{counts[row, column]:,}\n{100 * share:.1f} %"
            axes.text(column, row, text, ha="center", va="center", color="white" if share > 0.5 else "black")
    axes.set_xticks(range(3), _OUTCOMES)
    axes.set_yticks(range(3), _OUTCOMES)
    axes.set_title("Winner in both orders", fontsize=13, fontweight="bold", loc="left")
    axes.set_xlabel("winner where B is shown second", fontsize=10)
    axes.set_ylabel("winner where B is shown first", fontsize=10)
    axes.annotate("favours the first slot", (0.02, 1.0), xycoords="axes fraction", va="top", fontsize=9)
    axes.annotate(
        "favours the second slot", (0.98, 0.0), xycoords="axes fraction", ha="right", va="bottom", fontsize=9
    )


def audit_figure(p_ab: ArrayLike, p_ba: ArrayLike) -> Figure:
    """Both pictures side by side."""
    figure = Figure(figsize=(10, 5.2), dpi=DPI, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    if only_verdicts(p_ab, p_ba):
        plot_winners(left, prepare_winners(p_ab, p_ba))
    else:
        plot_order_swap(left, prepare_order_swap(p_ab, p_ba), "Order swap")
    plot_deviations(right, prepare_deviations(p_ab, p_ba))
    return figure
