"""The figures of a study, and one of all methods.

`prepare_…` computes plain arrays from recorded runs, `plot_…` draws them on given axes, `…_figure` combines them.
Lines differ in marker and dash as well as in colour, so that they are distinguishable in grey; the study's own
method is black in all figures. `benchmarks.study.results` defines the intervals.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import cycle, islice

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from autorater.report.comparison_plots import COLORS
from autorater.report.plots import blank_figure
from benchmarks.study.results import Estimate, Results, over_seeds
from benchmarks.study.tables import objective_accuracy, vote_points

_MARKERS = "osD^vPX"
_DASHES = ((5, 2), (1.5, 1.5), (6, 2, 1.5, 2), (3, 2), (8, 2), (1, 3), (4, 1, 1, 1, 1, 1))
_EDGES = np.linspace(0.5, 1, 6)  # of p* for the response that the population prefers
_GREY = "#6E6E6E"
_FLOOR = 1e-4  # of axes with a logarithmic scale
Style = Mapping[str, object]
Curve = dict[str, np.ndarray]


def styles(n: int) -> list[Style]:
    """Colour, marker and dash of n lines."""
    kinds = zip(cycle((*COLORS[:-1], "#8C8C8C")), cycle(_MARKERS), cycle(_DASHES), strict=False)
    return [{"color": c, "marker": m, "dashes": d} for c, m, d in islice(kinds, n)]


def method_styles(results: Results, methods: Sequence[str]) -> list[Style]:
    """Styles of methods; the study's own method is black, solid, with a star."""
    others = iter(styles(len(methods)))
    ours = {"color": COLORS[-1], "marker": "*", "dashes": ()}
    return [ours if method == results.plan.figures.ours else next(others) for method in methods]


def curve(x: Sequence[float], estimates: Sequence[Estimate]) -> Curve:
    """Estimates along an axis: `x`, `value`, `low`, `high`, shape (K,) each."""
    columns = {name: np.array([getattr(e, name) for e in estimates]) for name in ("value", "low", "high")}
    return {"x": np.asarray(x, dtype=float), **columns}


def plot_curve(axes: Axes, points: Curve, style: Style, label: str) -> None:
    """A line with the interval of every point."""
    x, value, color = points["x"], points["value"], style["color"]
    axes.plot(x, value, **style, markersize=5.5, linewidth=1.7, label=label)
    if not np.isnan(points["low"]).all():
        ends = np.abs(np.stack([value - points["low"], points["high"] - value]))
        axes.errorbar(x, value, ends, fmt="none", ecolor=color, capsize=2, linewidth=0.9, alpha=0.55)


def _finish(axes: Axes, x: str, y: str, title: str = "") -> None:
    axes.set_xlabel(x, fontsize=10)
    axes.set_ylabel(y, fontsize=10)
    if title:
        axes.set_title(title, fontsize=11, fontweight="bold", loc="left", parse_math=False)
    axes.grid(color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)


def _plain_numbers(axis: Axis) -> None:
    """Plain numbers on a logarithmic axis, at 1, 2 and 5."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.set_minor_formatter(NullFormatter())


def _blank(size: tuple[float, float], results: Results) -> Figure:
    """A white figure with a note about its intervals."""
    figure, n = blank_figure(size), len(results.plan.seeds)
    note = f"mean of {n} seeds, 95 % interval of the mean (Student's t)" if n > 1 else "one seed, so no intervals"
    figure.suptitle(note, fontsize=8.5, color=_GREY, x=0.99, ha="right")
    return figure


def _show_means(axes: Axes, curves: Sequence[Curve], bottom: float | None = None) -> None:
    """Axis range of the means with a margin: with two or three seeds intervals can be much wider."""
    values = np.concatenate([points["value"] for points in curves])
    margin = 0.35 * (values.max() - min(values.min(), 0.0)) + 1e-6
    axes.set_ylim(values.min() - margin if bottom is None else bottom, values.max() + margin)


def _legend_below(figure: Figure, axes: Axes, columns: int = 2) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=columns, fontsize=9, frameon=False, handlelength=4
    )


def prepare_overconfidence(results: Results, dataset: str, method: str) -> Curve:
    """How far answers for the response that the population prefers are above p*, by p*; both orders counted.

    Position bias cancels between the orders, so the remainder is over- or underconfidence.
    """
    by_seed = []
    for p_ab, p_ba, _, truth in results.answers(dataset, method):
        prefers_b = truth > 0.5
        sure = np.where(prefers_b, truth, 1 - truth)
        answers = np.where(prefers_b, (p_ab + 1 - p_ba) / 2, 1 - (p_ab + 1 - p_ba) / 2)
        bins = np.clip(np.digitize(sure, _EDGES) - 1, 0, len(_EDGES) - 2)
        filled = [bins == b for b in range(len(_EDGES) - 1)]
        by_seed.append([[sure[b].mean(), (answers - sure)[b].mean()] if b.any() else [np.nan] * 2 for b in filled])
    columns = np.array(by_seed)  # (seeds, bins, 2)
    columns = columns[:, ~np.isnan(columns).any(axis=(0, 2))]
    return curve(columns[..., 0].mean(axis=0), [over_seeds(column) for column in columns[..., 1].T])


def overconfidence_figure(results: Results, dataset: str) -> Figure:
    """(a) Does dividing by the group's deviation cause overconfidence? As a function of p*."""
    methods = results.plan.figures.overconfidence
    figure = _blank((8, 5.6), results)
    axes = figure.add_subplot()
    axes.axhline(0, color=_GREY, linewidth=1, linestyle="--")
    curves = [prepare_overconfidence(results, dataset, method) for method in methods]
    for method, points, style in zip(methods, curves, method_styles(results, methods), strict=True):
        plot_curve(axes, points, style, results.title(method))
    _show_means(axes, curves)
    _finish(
        axes,
        "p*: share of the population that prefers the preferred response (0.5 to 1)",
        "mean answer for that response − p*\n(probability; above 0: overconfident)",
    )
    _legend_below(figure, axes)
    return figure


def votes_figure(results: Results, dataset: str) -> Figure:
    """(b) Votes per pair: against the number of pairs at equal training steps, and against the number of votes."""
    figure = _blank((10, 5), results)
    left, right = figure.subplots(1, 2, sharey=True)
    points = vote_points(results, dataset)
    kinds = sorted({n_votes for _, n_votes, _ in points})
    for n_votes, style in zip(kinds, styles(len(kinds)), strict=True):
        pairs = [n for n, m, _ in points if m == n_votes]
        estimates = [e for _, m, e in points if m == n_votes]
        label = "1 vote a pair" if n_votes == 1 else f"{n_votes} votes a pair"
        plot_curve(left, curve(pairs, estimates), style, label)
        plot_curve(right, curve([n * n_votes for n in pairs], estimates), style, label)
    for axes in (left, right):
        axes.set_xscale("log")
        _plain_numbers(axes.xaxis)
        axes.set_ylim(bottom=0)
    _finish(left, "labelled pairs (log scale)", "excess Brier score", "At equal pairs and steps")
    _finish(right, "votes bought: pairs × votes a pair (log scale)", "", "At equal votes and steps")
    _legend_below(figure, left, 4)
    return figure


def prepare_learning_curve(results: Results, dataset: str, method: str, key: str, x: str = "step") -> Curve:
    """A metric during training, at the evaluations common to all seeds; `x` may be `step`, `seconds` or `tokens`."""
    curves = [result["learning_curve"] for result in results.of(dataset, method)]
    points = list(zip(*curves, strict=True))
    return curve(
        [np.mean([point[x] for point in seeds]) for seeds in points],
        [over_seeds([point[key] for point in seeds]) for seeds in points],
    )


def learning_curve_figure(results: Results, dataset: str) -> Figure:
    """(c) Calibration and position bias during training."""
    methods = results.plan.figures.learning_curve
    figure = _blank((11, 4.9), results)
    panels = figure.subplots(1, 3)
    named = {
        "excess_brier": ("excess Brier score", "Calibration"),
        "gap": ("mean answer − vote share\non the side answered", "Overconfidence"),
        "symmetry_deviation_abs": ("absolute position bias (probability)", "Position bias"),
    }
    for axes, (key, (label, title)) in zip(panels, named.items(), strict=True):
        curves = [prepare_learning_curve(results, dataset, method, key) for method in methods]
        steps = curves[0]["x"]
        apart = np.linspace(-0.12, 0.12, len(methods)) * np.ptp(steps) / max(1, len(steps) - 1)
        for method, points, style, shift in zip(methods, curves, method_styles(results, methods), apart, strict=True):
            plot_curve(axes, {**points, "x": points["x"] + shift}, style, results.title(method))
        axes.axhline(0, color=_GREY, linewidth=1, linestyle="--")
        _show_means(axes, curves, bottom=None if key == "gap" else 0.0)
        _finish(axes, "training steps", label, title)
    _legend_below(figure, panels[0])
    return figure


def plot_rows(
    axes: Axes, rows: Sequence[tuple[str, Estimate]], style: Style, label: str = "", shift: float = 0.0
) -> None:
    """One dot with its interval per row, the first on top."""
    y = np.arange(len(rows)) + shift
    estimates = [estimate for _, estimate in rows]
    low, value, high = (np.array([getattr(e, name) for e in estimates]) for name in ("low", "value", "high"))
    axes.hlines(y, low, high, colors=style["color"], linewidth=1.6)
    axes.plot(value, y, linestyle="none", marker=style["marker"], markersize=6, color=style["color"], label=label)
    axes.set_yticks(np.arange(len(rows)), [name for name, _ in rows], fontsize=9, parse_math=False)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)


def _row_panels(
    results: Results,
    methods: Sequence[str],
    panels: Sequence[tuple[str, Mapping[str, Callable[[str], Estimate | None]]]],
    row: float = 0.42,
) -> Figure:
    """Methods as rows; every panel has a label and one or several values per method, by name."""
    figure = _blank((10.5, 1.6 + row * len(methods)), results)
    everything = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (label, series) in zip(everything, panels, strict=True):
        shifts = np.linspace(-0.14, 0.14, len(series)) if len(series) > 1 else [0.0]
        for (name, figure_of), style, shift in zip(series.items(), styles(len(series)), shifts, strict=True):
            known = [(results.title(m), figure_of(m) or Estimate(np.nan, np.nan, np.nan, ())) for m in methods]
            plot_rows(axes, known, style, name, shift)
        _finish(axes, label, "")
        if len(series) > 1:
            axes.legend(loc="best", fontsize=8, framealpha=0.9)
    return figure


def orders_figure(results: Results, dataset: str) -> Figure:
    """(d) Effect of swap augmentation, coupling and swap averaging."""

    def of(key: str) -> Callable[[str], Estimate | None]:
        return lambda method: results.estimate(dataset, method, key)

    panels = [
        (
            "excess Brier score",
            {"each order by itself": of("excess_brier"), "swap averaged": of("excess_brier_symmetrized")},
        ),
        ("absolute position bias (probability), each order", {"": of("symmetry_deviation_abs")}),
    ]
    figure = _row_panels(results, results.plan.figures.orders, panels)
    for axes in figure.axes:
        axes.set_xlim(left=0)
    return figure


def objective_figure(results: Results, dataset: str) -> Figure:
    """(e) Accuracy on pairs with one correct answer."""
    panels = [
        ("share of pairs judged correctly (0 to 1)",
         {"in both orders": lambda m: objective_accuracy(results, dataset, m)[0],
          "each order by itself": lambda m: objective_accuracy(results, dataset, m)[1]}),
        ("mean (answer − right answer)²", {"": lambda m: results.estimate(dataset, m, "excess_brier", "objective")}),
    ]  # fmt: skip
    return _row_panels(results, results.plan.figures.objective, panels)


def cost_figure(results: Results, dataset: str) -> Figure:
    """(f) Time and tokens to a given calibration."""
    methods, target = results.plan.figures.cost, results.plan.figures.target
    figure = _blank((10.5, 5.4), results)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, x in zip(panels, ("seconds", "tokens"), strict=True):
        for method, style in zip(methods, method_styles(results, methods), strict=True):
            points = prepare_learning_curve(results, dataset, method, "excess_brier", x)
            trained = {name: column[1:] for name, column in points.items()}  # the first cost nothing: log 0
            trained["low"] = np.maximum(trained["low"], _FLOOR)
            plot_curve(axes, trained, style, results.title(method))
        axes.axhline(target, color=_GREY, linewidth=1, linestyle="--")
        axes.set_xscale("log")
        axes.set_yscale("log")
        _plain_numbers(axes.xaxis)
        _plain_numbers(axes.yaxis)
        axes.set_ylim(bottom=target / 4)
    panels[0].annotate(
        f"target {target:g}", (0.02, target), xycoords=("axes fraction", "data"), fontsize=8, va="bottom"
    )
    _finish(panels[0], "CPU seconds of training steps (log scale)", "excess Brier score (log scale)", "Time")
    _finish(panels[1], "tokens through the model while training (log scale)", "", "Tokens")
    _legend_below(figure, panels[0])
    return figure


def methods_figure(results: Results, dataset: str) -> Figure:
    """All methods of a dataset: calibration and position bias."""
    panels = [
        (title, {"": lambda method, key=key: results.estimate(dataset, method, key)})
        for key, title in (
            ("excess_brier", "excess Brier score (log scale)"),
            ("symmetry_deviation_abs", "absolute position bias (probability)"),
            ("gap", "overconfidence (probability)"),
        )
    ]
    figure = _row_panels(results, results.methods(dataset), panels, 0.33)
    figure.axes[0].set_xscale("log")
    _plain_numbers(figure.axes[0].xaxis)
    figure.axes[2].axvline(0, color=_GREY, linewidth=1, linestyle="--")
    return figure


FIGURES: dict[str, tuple[Callable[[Results, str], Figure], str]] = {
    "methods": (methods_figure, ""),
    "overconfidence": (overconfidence_figure, "overconfidence"),
    "votes": (votes_figure, "votes"),
    "learning_curve": (learning_curve_figure, "learning_curve"),
    "orders": (orders_figure, "orders"),
    "objective": (objective_figure, "objective"),
    "cost": (cost_figure, "cost"),
}
"""File name, drawing function, and the list of the plan that must not be empty."""
