"""Pictures of a judge: reliability (where it says 0.7, do 70 % agree?) and order swap (does the slot matter?).

`prepare_…` computes and returns plain arrays; `plot_…` draws them on given axes; `…_figure` puts before and after side
by side. Figures are built on the Agg canvas alone: no pyplot, no global state, no changed rcParams.

The bars of a bin are Wilson's 95 % interval for its mean vote share. Wilson's is for single votes; a dense label is
the mean of several and varies less, so the number of votes n is raised to n · ȳ(1 − ȳ)/s², s² the variance of the
labels in the bin, drawn towards ȳ(1 − ȳ) by one label's weight. For labels of 0 and 1 this is Wilson's own interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from autorater.metrics import reliability_curve
from autorater.metrics.binning import bin_indices
from autorater.metrics.shares import wilson_interval
from autorater.metrics.validation import check_equal_lengths, check_probabilities

if TYPE_CHECKING:
    from autorater.evaluation.judge import Evaluation

DPI = 130
_SIZE = (10, 5.2)  # inches
_BEFORE, _AFTER, _TRUTH, _GREY = "#D55E00", "#0072B2", "#000000", "#6E6E6E"  # Okabe and Ito's, told apart by all
_HISTOGRAM_BINS = 20
_MAX_POINTS = 4_000  # of a scatter: more only darken it
_HEADLINE = (
    ("ece", "ECE", ".3f"),
    ("brier", "Brier", ".4f"),
    ("excess_brier", "excess Brier", ".4f"),
    ("symmetry_deviation_abs", "mean |SD|", ".3f"),
)


def prepare_reliability(
    probabilities: ArrayLike, labels: ArrayLike, truth: ArrayLike | None = None, n_bins: int = 10
) -> dict[str, np.ndarray]:
    """The numbers of a reliability diagram.

    Args:
        probabilities: shape (N,), answers in [0, 1].
        labels: shape (N,), vote shares in [0, 1].
        truth: shape (N,), p* in [0, 1], where it is known.
        n_bins: bins of equal width, right-closed.

    Returns:
        For every bin that is not empty, ascending: `probability` (mean answer), `label` (mean vote share), `low` and
        `high` (its 95 % interval), `count`, and with a truth `truth` (mean p*). For 20 bins of equal width:
        `histogram`, the share of answers in each.

    Raises:
        ValueError: empty input, unequal lengths, NaN, values outside [0, 1].
    """
    prepared = reliability_curve(probabilities, labels, n_bins)
    probabilities, labels = check_probabilities("probabilities", probabilities), check_probabilities("labels", labels)
    prepared["low"], prepared["high"] = wilson_interval(
        prepared["label"], _effective_votes(probabilities, labels, n_bins)
    )
    if truth is not None:
        prepared["truth"] = reliability_curve(probabilities, truth, n_bins)["label"]
    counts = np.bincount(bin_indices(probabilities, _HISTOGRAM_BINS, "uniform"), minlength=_HISTOGRAM_BINS)
    return prepared | {"histogram": counts / counts.sum()}


def plot_reliability(
    axes: tuple[Axes, Axes],
    prepared: dict[str, np.ndarray],
    title: str,
    color: str = _AFTER,
    notes: Sequence[str] = (),
) -> None:
    """Draws what `prepare_reliability` returned.

    Args:
        axes: The diagram, and below it the histogram of answers.
        prepared: The numbers.
        title: Above the diagram.
        color: Of the points and the histogram.
        notes: Lines of the text box.
    """
    diagram, histogram = axes
    x, y, count = prepared["probability"], prepared["label"], prepared["count"]
    diagram.plot([0, 1], [0, 1], color=_GREY, linewidth=1, linestyle="--", label="calibrated", zorder=1)
    diagram.scatter(x, y, s=20 + 230 * count / count.max(), color=color, alpha=0.45, linewidths=0, zorder=2)
    diagram.fill_between(x, prepared["low"], prepared["high"], color=color, alpha=0.12, linewidth=0, zorder=1)
    bars = [y - prepared["low"], prepared["high"] - y]
    diagram.errorbar(
        x,
        y,
        bars,
        fmt="o",
        markersize=3.5,
        color=color,
        linewidth=1.8,
        capsize=3,
        label="mean vote, 95 % interval",
        zorder=3,
    )
    if "truth" in prepared:
        diagram.scatter(
            x, prepared["truth"], s=62, marker="D", facecolors="none", edgecolors=_TRUTH, zorder=4, label="mean p*"
        )
    diagram.set_title(title, fontsize=13, fontweight="bold", loc="left", parse_math=False)
    diagram.set_ylabel("votes for the response shown second\n(share, 0 to 1)", fontsize=10)
    diagram.set_ylim(-0.04, 1.04)
    diagram.legend(loc="lower right", fontsize=9, framealpha=0.9)
    _note(diagram, notes)

    edges = np.linspace(0, 1, len(prepared["histogram"]) + 1)
    histogram.stairs(prepared["histogram"], edges, fill=True, color=color, alpha=0.85)
    histogram.set_ylabel("share of\nanswers", fontsize=10)
    histogram.set_xlabel("answer: Pr[response shown second is better], 0 to 1", fontsize=10)
    for panel in axes:
        panel.set_xlim(-0.04, 1.04)
        panel.grid(color="#DDDDDD", linewidth=0.6)
        panel.set_axisbelow(True)
    diagram.tick_params(labelbottom=False)


def reliability_figure(before: Evaluation, after: Evaluation) -> Figure:
    """Reliability before and after training, side by side."""
    return reliability_panels(_columns(before, after))


def reliability_panels(panels: Sequence[tuple[str, str, Evaluation]], size: tuple[float, float] = _SIZE) -> Figure:
    """Reliability of one or several judges, side by side.

    Args:
        panels: Title, colour and evaluation of each, from left to right.
        size: Of the figure, in inches.
    """
    figure = blank_figure(size)
    grid = figure.add_gridspec(2, len(panels), height_ratios=(4.2, 1))
    prepared = [prepare_reliability(e.probabilities, e.labels, e.truth) for _, _, e in panels]
    tallest = max(p["histogram"].max() for p in prepared)
    for column, (title, color, evaluation) in enumerate(panels):
        axes = figure.add_subplot(grid[0, column]), figure.add_subplot(grid[1, column])
        notes = [
            f"{name} {evaluation.metrics[key]:{form}}" for key, name, form in _HEADLINE if key in evaluation.metrics
        ]
        plot_reliability(axes, prepared[column], title, color, notes)
        axes[1].set_ylim(0, 1.08 * tallest)
    return figure


def prepare_order_swap(p_ab: ArrayLike, p_ba: ArrayLike) -> dict[str, np.ndarray]:
    """What swapping the responses does to the probability of B.

    Args:
        p_ab: shape (N,), Pr[B better] read from order ab, in [0, 1].
        p_ba: shape (N,), Pr[A better] read from order ba, in [0, 1].

    Returns:
        `shown_second` (p_ab) and `shown_first` (1 − p_ba): Pr[B better] where B is shown second or first, both (M,);
        of more than 4,000 pairs, as many, evenly spaced. `deviation_mean` and `deviation_abs`, scalars of all N
        pairs: the means of SD = p_ab + p_ba − 1 and of its absolute value.

    Raises:
        ValueError: empty input, unequal lengths, NaN, values outside [0, 1].
    """
    p_ab, p_ba = check_probabilities("p_ab", p_ab), check_probabilities("p_ba", p_ba)
    check_equal_lengths(p_ab=p_ab, p_ba=p_ba)
    shown = np.linspace(0, p_ab.size - 1, min(p_ab.size, _MAX_POINTS)).round().astype(np.int64)
    deviation = p_ab + p_ba - 1
    return {
        "shown_second": p_ab[shown],
        "shown_first": 1 - p_ba[shown],
        "deviation_mean": deviation.mean(),
        "deviation_abs": np.abs(deviation).mean(),
    }


def plot_order_swap(axes: Axes, prepared: dict[str, np.ndarray], title: str, color: str = _AFTER) -> None:
    """Draws what `prepare_order_swap` returned: one dot a pair; below the diagonal, the second slot is favoured."""
    axes.plot([0, 1], [0, 1], color=_GREY, linewidth=1, linestyle="--", zorder=3)
    n_points = len(prepared["shown_second"])
    alpha = float(np.clip(120 / n_points, 0.08, 0.8))
    axes.scatter(prepared["shown_second"], prepared["shown_first"], s=22, color=color, alpha=alpha, linewidths=0)
    axes.set_title(title, fontsize=13, fontweight="bold", loc="left", parse_math=False)
    axes.set_xlabel("Pr[B is better] when B is shown second, 0 to 1", fontsize=10)
    axes.set_ylabel("Pr[B is better] when B is shown first, 0 to 1", fontsize=10)
    axes.set_xlim(-0.04, 1.04)
    axes.set_ylim(-0.04, 1.04)
    axes.set_aspect("equal")
    axes.grid(color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    paper = {"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": "none", "alpha": 0.85}
    axes.text(0.98, 0.1, "favours the\nsecond slot", fontsize=9, ha="right", va="bottom", bbox=paper, zorder=4)
    axes.text(0.02, 0.75, "favours the\nfirst slot", fontsize=9, ha="left", va="top", bbox=paper, zorder=4)
    _note(axes, [f"mean SD {prepared['deviation_mean']:+.3f}", f"mean |SD| {prepared['deviation_abs']:.3f}"])


def order_swap_figure(before: Evaluation, after: Evaluation) -> Figure:
    """The answers of both orders against each other, before and after training, side by side."""
    return order_swap_panels(_columns(before, after))


def order_swap_panels(panels: Sequence[tuple[str, str, Evaluation]], size: tuple[float, float] = _SIZE) -> Figure:
    """The answers of both orders against each other; args as in `reliability_panels`."""
    figure = blank_figure(size)
    for column, (title, color, evaluation) in enumerate(panels):
        prepared = prepare_order_swap(evaluation.judgments.p_ab, evaluation.judgments.p_ba)
        plot_order_swap(figure.add_subplot(1, len(panels), column + 1), prepared, title, color)
    return figure


def _columns(before: Evaluation, after: Evaluation) -> tuple[tuple[str, str, Evaluation], ...]:
    return ("Before training", _BEFORE, before), ("After training", _AFTER, after)


def blank_figure(size: tuple[float, float] = _SIZE) -> Figure:
    """A white figure of that many inches, on the Agg canvas."""
    figure = Figure(figsize=size, dpi=DPI, facecolor="white", layout="constrained")
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08)  # inches
    FigureCanvasAgg(figure)
    return figure


def _note(axes: Axes, lines: Sequence[str]) -> None:
    if lines:
        box = {"boxstyle": "round,pad=0.4", "facecolor": "white", "edgecolor": "#BBBBBB", "alpha": 0.92}
        text = "\n".join(lines)
        axes.text(
            0.03, 0.97, text, transform=axes.transAxes, va="top", fontsize=10, bbox=box, parse_math=False, zorder=5
        )


def _effective_votes(probabilities: np.ndarray, labels: np.ndarray, n_bins: int) -> np.ndarray:
    """Single votes that would leave each bin's mean as uncertain as its labels do."""
    bins = bin_indices(probabilities, n_bins, "uniform")
    count = np.bincount(bins)
    filled = count > 0
    mean = np.bincount(bins, labels) / np.maximum(count, 1)
    variance = (np.bincount(bins, (labels - mean[bins]) ** 2) / np.maximum(count, 1))[filled]
    count, single = count[filled], (mean * (1 - mean))[filled]
    shrunk = ((count - 1) * variance + single) / count
    return count * np.divide(single, shrunk, out=np.ones_like(single), where=shrunk > 0)
