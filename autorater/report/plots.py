"""Figures of a judge: reliability diagrams, and the effect of swapping the responses.

`prepare_…` computes arrays; `plot_…` draws them on given axes; `…_figure` shows several judges side by side. Figures
use the Agg canvas alone: no pyplot, no global state, no changed rcParams.

The bars of a bin are Wilson's 95 % interval for its mean vote share ȳ. It is for single votes, and a dense label, the
mean of several, varies less. So the number of labels n is raised to n · ȳ(1 − ȳ)/s², with s² the variance of the
labels in the bin, shrunk towards ȳ(1 − ȳ) with the weight of one label.
"""

from collections.abc import Sequence
from textwrap import fill

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from autorater.evaluation.judge import Evaluation
from autorater.metrics import reliability_curve
from autorater.metrics.binning import bin_indices
from autorater.metrics.intervals import wilson_interval
from autorater.metrics.validation import check_equal_lengths, check_probabilities
from autorater.report.glossary import GLOSSARY

Panel = tuple[str, str, Evaluation]
"""Title, colour and evaluation of a panel."""
DPI = 130
_SIZE = (10, 5.2)  # inches
GREY = "#6E6E6E"
BLUE, ORANGE = "#0072B2", "#D55E00"  # Okabe and Ito: distinguishable by colour-blind readers
_BEFORE, _AFTER, _TRUTH = ORANGE, BLUE, "#000000"
_HISTOGRAM_BINS = 20
_MAX_POINTS = 4_000  # of a scatter plot; more only darken it
_NOTES = (
    ("ece", "ECE", ".3f"),
    ("brier", "Brier", ".4f"),
    ("excess_brier", "excess Brier", ".4f"),
    ("symmetry_deviation_abs", "position bias", ".3f"),
)


def prepare_reliability(
    probabilities: ArrayLike, labels: ArrayLike, truth: ArrayLike | None = None, weights: ArrayLike | None = None
) -> dict[str, np.ndarray]:
    """Computes a reliability diagram.

    Args:
        probabilities: shape (N,), answers in [0, 1].
        labels: shape (N,), vote shares in [0, 1].
        truth: shape (N,), p* in [0, 1], if known.
        weights: shape (N,), at least 0, how much each answer counts; default 1.

    Returns:
        For every one of ten bins that is not empty, ascending: `probability` (mean answer), `label` (mean vote share),
        `low` and `high` (its 95 % interval), `count`, and with a truth `truth` (mean p*). For 20 bins of equal width:
        `histogram`, the share of answers in each.

    Raises:
        ValueError: empty input, unequal lengths, NaN, values outside [0, 1].
    """
    probabilities, labels = check_probabilities("probabilities", probabilities), check_probabilities("labels", labels)
    weights = None if weights is None else np.asarray(weights) / np.max(weights)
    prepared = reliability_curve(probabilities, labels, weights=weights)
    mean, count = prepared["label"], prepared["count"]
    if weights is not None:  # Kish's effective number of answers in the bin
        count = count / reliability_curve(probabilities, weights, weights=weights)["label"]
    single = mean * (1 - mean)
    variance = reliability_curve(probabilities, labels**2, weights=weights)["label"] - mean**2
    shrunk = ((count - 1) * variance + single) / count
    votes = count * np.divide(single, shrunk, out=np.ones_like(single), where=shrunk > 0)
    prepared["low"], prepared["high"] = wilson_interval(mean, votes)
    if truth is not None:
        prepared["truth"] = reliability_curve(probabilities, truth, weights=weights)["label"]
    counts = np.bincount(bin_indices(probabilities, _HISTOGRAM_BINS, "uniform"), minlength=_HISTOGRAM_BINS)
    return prepared | {"histogram": counts / counts.sum()}


def plot_reliability(
    axes: tuple[Axes, Axes], prepared: dict[str, np.ndarray], title: str, color: str, notes: Sequence[str]
) -> None:
    """Draws the result of `prepare_reliability`: the diagram with a box of notes, and the histogram of answers."""
    diagram, histogram = axes
    x, y, count = prepared["probability"], prepared["label"], prepared["count"]
    diagram.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--", label="calibrated", zorder=1)
    diagram.scatter(x, y, s=20 + 230 * count / count.max(), color=color, alpha=0.45, linewidths=0, zorder=2)
    diagram.fill_between(x, prepared["low"], prepared["high"], color=color, alpha=0.12, linewidth=0, zorder=1)
    bars = [y - prepared["low"], prepared["high"] - y]
    style = {"fmt": "o", "markersize": 3.5, "color": color, "linewidth": 1.8, "capsize": 3, "zorder": 3}
    diagram.errorbar(x, y, bars, label="mean vote, 95 % interval", **style)
    if "truth" in prepared:
        diagram.scatter(
            x, prepared["truth"], s=62, marker="D", facecolors="none", edgecolors=_TRUTH, zorder=4, label="mean p*"
        )
    diagram.set_title(fill(title, 34), fontsize=13, fontweight="bold", loc="left", parse_math=False)
    diagram.set_ylabel("votes for the response shown second\n(share, 0 to 1)", fontsize=10)
    diagram.set_ylim(-0.04, 1.04)
    diagram.legend(loc="lower right", fontsize=9, framealpha=0.9)
    _note(diagram, notes)

    histogram.stairs(prepared["histogram"], np.linspace(0, 1, _HISTOGRAM_BINS + 1), fill=True, color=color, alpha=0.85)
    histogram.set_ylabel("share of\nanswers", fontsize=10)
    histogram.set_xlabel("answer: Pr[response shown second is better], 0 to 1", fontsize=10)
    for panel in axes:
        panel.set_xlim(-0.04, 1.04)
        grid(panel)
    diagram.tick_params(labelbottom=False)


def reliability_figure(panels: Sequence[Panel], size: tuple[float, float] = _SIZE) -> Figure:
    """Reliability of one or several judges side by side, in a figure of the given size in inches."""
    figure = blank_figure(size)
    layout = figure.add_gridspec(2, len(panels), height_ratios=(4.2, 1))
    prepared = [prepare_reliability(e.probabilities, e.labels, e.truth, e.weights) for _, _, e in panels]
    tallest = max(p["histogram"].max() for p in prepared)
    for column, (title, color, evaluation) in enumerate(panels):
        axes = figure.add_subplot(layout[0, column]), figure.add_subplot(layout[1, column])
        notes = [f"{name} {evaluation.metrics[key]:{form}}" for key, name, form in _NOTES if key in evaluation.metrics]
        plot_reliability(axes, prepared[column], title, color, notes)
        axes[1].set_ylim(0, 1.08 * tallest)
    return figure


def prepare_order_swap(p_ab: ArrayLike, p_ba: ArrayLike) -> dict[str, np.ndarray]:
    """Computes the effect of swapping the responses on the probability of B.

    Args:
        p_ab, p_ba: shape (N,), Pr[B better] in order ab and Pr[A better] in order ba, in [0, 1].

    Returns:
        `shown_second` (p_ab) and `shown_first` (1 − p_ba): Pr[B better] where B is shown second or first, both (M,);
        of more than 4,000 pairs, 4,000 evenly spaced ones. `deviation_mean` and `deviation_abs`, scalars of all N
        pairs: the means of p_ab + p_ba − 1 and of its absolute value.

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


def plot_order_swap(
    axes: Axes, prepared: dict[str, np.ndarray], title: str, color: str = _AFTER, probe: str = "swap"
) -> None:
    """Draws the result of `prepare_order_swap`: one dot per pair; below the diagonal, position bias is above 0.

    Of another probe of an audit, they are the answers for its two presentations, and its effect.
    """
    words = GLOSSARY["probes"][probe]
    unit_square(axes, title, *(f"Pr[B is better] when {shown}, 0 to 1" for shown in words["presentations"]))
    alpha = float(np.clip(120 / len(prepared["shown_second"]), 0.08, 0.8))
    axes.scatter(prepared["shown_second"], prepared["shown_first"], s=22, color=color, alpha=alpha, linewidths=0)
    paper = {"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": "none", "alpha": 0.85}
    favoured, other = (fill(f"favours {words[side]}", 19) for side in ("favoured", "other"))
    axes.text(0.98, 0.1, favoured, fontsize=9, ha="right", va="bottom", bbox=paper, zorder=4)
    axes.text(0.02, 0.75, other, fontsize=9, ha="left", va="top", bbox=paper, zorder=4)
    bias = f"signed {prepared['deviation_mean']:+.3f}", f"absolute {prepared['deviation_abs']:.3f}"
    _note(axes, [words["effect"], *bias])


def order_swap_figure(panels: Sequence[Panel], size: tuple[float, float] = _SIZE) -> Figure:
    """The answers of both orders against each other; args as in `reliability_figure`."""
    figure = blank_figure(size)
    for column, (title, color, evaluation) in enumerate(panels):
        prepared = prepare_order_swap(evaluation.judgments.p_ab, evaluation.judgments.p_ba)
        plot_order_swap(figure.add_subplot(1, len(panels), column + 1), prepared, title, color)
    return figure


def before_and_after(before: Evaluation, after: Evaluation) -> tuple[Panel, Panel]:
    """The two panels of a figure about training."""
    return ("Before training", _BEFORE, before), ("After training", _AFTER, after)


def blank_figure(size: tuple[float, float] = _SIZE) -> Figure:
    """A white figure of the given size in inches, on the Agg canvas."""
    figure = Figure(figsize=size, dpi=DPI, facecolor="white", layout="constrained")
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08)  # inches
    FigureCanvasAgg(figure)
    return figure


def unit_square(axes: Axes, title: str, x: str, y: str) -> None:
    """Axes with names and a grid, from 0 to 1 in both directions, and the diagonal."""
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--", zorder=3)
    axes.set_title(fill(title, 34), fontsize=13, fontweight="bold", loc="left", parse_math=False)
    axes.set_xlabel(x, fontsize=10)
    axes.set_ylabel(y, fontsize=10)
    axes.set(xlim=(-0.04, 1.04), ylim=(-0.04, 1.04), aspect="equal")
    grid(axes)


def grid(axes: Axes, axis: str = "both") -> None:
    """Draws thin grey grid lines below the data."""
    axes.grid(axis=axis, color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)


def _note(axes: Axes, lines: Sequence[str]) -> None:
    box = {"boxstyle": "round,pad=0.4", "facecolor": "white", "edgecolor": "#BBBBBB", "alpha": 0.92}
    style = {"transform": axes.transAxes, "va": "top", "fontsize": 10, "parse_math": False, "zorder": 5}
    axes.text(0.03, 0.97, "\n".join(lines), bbox=box, **style)
