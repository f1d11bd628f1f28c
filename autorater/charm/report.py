"""A CHARM run to look at: `report.html`, `report.md`, the table at its end, win rate against expected as a picture.

Versions of a reward model stand side by side, the original first. The page extends the same frame as the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from autorater.report.plots import DPI
from autorater.report.rendering import data_uri, png, render
from autorater.report.tables import settings_rows
from autorater.report.text import visible_line

if TYPE_CHECKING:
    from autorater.charm.elo import Rating
    from autorater.charm.evaluation import RewardEvaluation

_OTHERS, _OVERVALUED, _GREY = "#0072B2", "#D55E00", "#6E6E6E"

PAGE = """\
{% extends "base" %}
{% from "parts" import settings_table %}
{% macro rows(table) %}
<div class="wide">
<table>
<thead><tr>{% for name in table.header %}<th scope="col"{% if not loop.first %} class="number"{% endif %}>
{{- name|line(60) }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in table.rows %}
<tr>{% for cell in row %}{% if loop.first %}<th scope="row"><bdi class="model">{{ cell|line(80) }}</bdi></th>
{%- else -%}
<td class="number">{{ cell }}</td>{% endif %}{% endfor %}</tr>
{% endfor %}
</tbody>
</table>
</div>
{% endmacro %}
{% block content %}
<style>.model { white-space: nowrap }</style>
<p class="verdict">{{ verdict|line(600) }}</p>
<p class="soft">{{ calibration|line(600) }}</p>

<h2>{{ "Versions" if versions.header|length > 2 else "The reward model" }}</h2>
{{ rows(versions) }}
<p class="soft">Accuracy: share of held-out pairs on which the majority’s response scores higher. Mismatch Degree:
|(P̂ − P) / max(P, 1 − P)| with the win rate P̂ by the reward model and P by Elo; lower is better. Correlations are of
mean score with Elo. In brackets: 95 % interval, bootstrap over prompts.</p>

<h2>Win rate against expected</h2>
<figure>
<div class="wide"><img src="{{ picture }}" alt="Win rate by the reward model against win rate by Elo"></div>
<figcaption>Each dot is a model against another on held-out prompts, told of both sides; on the dashed line the reward
model and Elo agree. Filled dots above the line: {{ overvalued|line(80) }} wins more than it should.</figcaption>
</figure>

<h2>Models</h2>
{{ rows(models) }}
<p class="soft">Gap: mean over opponents of win rate − expected; above 0 the model is over-valued. MD: mean over
opponents of the Mismatch Degree. Only {{ overvalued|line(80) }} and {{ reference|line(80) }} took part in the
calibration.</p>

<h2>Pairs of models</h2>
<details><summary>{{ pairs.rows|length }} pairs</summary>
{{ rows(pairs) }}
</details>
{{ settings_table(settings) }}
{% endblock %}
"""


@dataclass(frozen=True)
class Table:
    """Cells as text; the first column names the row."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    @property
    def text(self) -> str:
        """Fixed width, for the terminal."""
        lines = [self.header, *self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.header))]
        return "\n".join(
            "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip() for line in lines
        )

    @property
    def markdown(self) -> str:
        """With bars; those inside cells are escaped."""
        lines = [self.header, ("---", *("---:" for _ in self.header[1:])), *self.rows]
        return "\n".join(
            f"| {' | '.join(visible_line(cell, 80).replace('|', chr(92) + '|') for cell in line)} |" for line in lines
        )


def versions_table(versions: Mapping[str, RewardEvaluation], overvalued: str, reference: str) -> Table:
    """The versions side by side, one figure a row.

    Args:
        versions: Evaluations on the same responses, by name of the version.
        overvalued, reference: The two models of the calibration.
    """
    rows = [
        ("accuracy", [_interval(e.accuracy, "accuracy") for e in versions.values()]),
        ("mismatch, all pairs", [f"{np.mean([row.mismatch for row in e.rows]):.3f}" for e in versions.values()]),
        (f"mismatch, {overvalued}", [f"{e.mismatch[overvalued]:.3f}" for e in versions.values()]),
        (
            f"mismatch, {overvalued} : {reference}",
            [f"{e.between(overvalued, reference).mismatch:.3f}" for e in versions.values()],
        ),
        ("Pearson with Elo", [_figure(e.correlations.get("pearson")) for e in versions.values()]),
        ("Spearman with Elo", [_figure(e.correlations.get("spearman")) for e in versions.values()]),
    ]
    return Table(("", *versions), tuple((name, *cells) for name, cells in rows))


def models_table(versions: Mapping[str, RewardEvaluation], ratings: Mapping[str, Rating]) -> Table:
    """Elo, and by version gap and mismatch of every model, the strongest first."""
    first = next(iter(versions.values()))
    rows = []
    for model in sorted(first.mean_scores, key=lambda model: -ratings[model].elo):
        rating = ratings[model]
        interval = "" if rating.low is None else f" [{rating.low:.0f}, {rating.high:.0f}]"
        gaps = [f"{e.gaps[model]:+.3f}" for e in versions.values()]
        degrees = [f"{e.mismatch[model]:.3f}" for e in versions.values()]
        rows.append((model, f"{rating.elo:.0f}{interval}", *gaps, *degrees))
    header = ("model", "Elo", *(f"{figure}, {name}" for figure in ("gap", "MD") for name in versions))
    return Table(header, tuple(rows))


def pairs_table(versions: Mapping[str, RewardEvaluation]) -> Table:
    """Win rates of every two models, the largest mismatch of the first version first."""
    first = next(iter(versions.values()))
    rows = []
    for row in sorted(first.rows, key=lambda row: -row.mismatch):
        cells = [f"{row.model} : {row.opponent}", f"{row.n_pairs:,}", f"{row.expected:.3f}"]
        for e in versions.values():
            same = e.between(row.model, row.opponent)
            interval = "" if same.judged_low is None else f" [{same.judged_low:.3f}, {same.judged_high:.3f}]"
            cells.append(f"{same.judged:.3f}{interval}")
        rows.append(tuple(cells))
    return Table(("pair", "prompts", "expected", *versions), tuple(rows))


def prepare_win_rates(evaluation: RewardEvaluation, overvalued: str) -> dict[str, np.ndarray]:
    """Both sides of every row: `expected` and `judged`, shape (2 R,), and `marked` where the model is `overvalued`."""
    rows = evaluation.rows
    expected, judged = (np.array([getattr(row, name) for row in rows]) for name in ("expected", "judged"))
    marked = [[getattr(row, side) == overvalued for row in rows] for side in ("model", "opponent")]
    return {
        "expected": np.concatenate([expected, 1 - expected]),
        "judged": np.concatenate([judged, 1 - judged]),
        "marked": np.concatenate(marked),
    }


def plot_win_rates(axes: Axes, prepared: dict[str, np.ndarray], title: str) -> None:
    """Draws what `prepare_win_rates` returned."""
    axes.plot([0, 1], [0, 1], color=_GREY, linewidth=1, linestyle="--", zorder=1)
    x, y, marked = prepared["expected"], prepared["judged"], prepared["marked"]
    axes.scatter(x[~marked], y[~marked], s=26, facecolors="none", edgecolors=_OTHERS, linewidths=1.2, zorder=2)
    axes.scatter(x[marked], y[marked], s=34, color=_OVERVALUED, zorder=3)
    axes.set_title(title, fontsize=12, fontweight="bold", loc="left", parse_math=False)
    axes.set_xlabel("win rate by Elo", fontsize=10)
    axes.set_ylabel("win rate by the reward model", fontsize=10)
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_aspect("equal")
    axes.grid(color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)


def win_rates_figure(versions: Mapping[str, RewardEvaluation], overvalued: str) -> Figure:
    """Win rate against expected, a panel a version."""
    figure = Figure(figsize=(4.2 * max(len(versions), 2), 4.4), dpi=DPI, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (name, evaluation) in zip(
        figure.subplots(1, len(versions), squeeze=False)[0], versions.items(), strict=True
    ):
        plot_win_rates(axes, prepare_win_rates(evaluation, overvalued), name)
    return figure


def verdict(versions: Mapping[str, RewardEvaluation], overvalued: str) -> str:
    """One sentence: what the reward model overvalues, and what calibration did about it."""
    (_, original), *others = versions.items()
    gap = original.gaps[overvalued]
    found = (
        f"The reward model {'overvalues' if gap > 0 else 'undervalues'} {overvalued}: against the others it wins "
        f"{100 * abs(gap):.0f} points {'more' if gap > 0 else 'less'} often than Elo says"
    )
    if not others:
        return f"{found}. Its mean Mismatch Degree is {original.mismatch[overvalued]:.3f}."
    name, last = others[-1]
    before, after = original.mismatch[overvalued], last.mismatch[overvalued]
    sentence = f"{found}. Its mean Mismatch Degree goes from {before:.3f} to {after:.3f} ({name})"
    if original.accuracy and last.accuracy:
        change = 100 * (last.accuracy["accuracy"] - original.accuracy["accuracy"])
        sentence += f", the accuracy on held-out votes changes by {change:+.1f} points"
    return sentence + "."


def write_charm_report(
    folder: str | Path,
    versions: Mapping[str, RewardEvaluation],
    ratings: Mapping[str, Rating],
    *,
    overvalued: str,
    reference: str,
    calibration: str,
    settings: Mapping[str, object],
) -> None:
    """Writes `report.html` and `report.md`.

    Args:
        folder: An existing folder.
        versions: Evaluations on the same responses, the original first; one alone is a diagnosis.
        ratings: Elo by model.
        overvalued, reference: The two models of the calibration.
        calibration: What was fitted, in a line.
        settings: What the run was told, by name.
    """
    title = "CHARM: reward models calibrated by Elo" if len(versions) > 1 else "Reward model against Elo"
    tables = {
        "versions": versions_table(versions, overvalued, reference),
        "models": models_table(versions, ratings),
        "pairs": pairs_table(versions),
    }
    sentence = verdict(versions, overvalued)
    page = render(
        PAGE,
        title=title,
        verdict=sentence,
        calibration=calibration,
        overvalued=overvalued,
        reference=reference,
        picture=data_uri(png(win_rates_figure(versions, overvalued))),
        settings=settings_rows(settings),
        **tables,
    )
    Path(folder, "report.html").write_text(page, encoding="utf-8")
    parts = [f"# {title}", sentence, calibration]
    for heading, table in zip(("Versions", "Models", "Pairs of models"), tables.values(), strict=True):
        parts += [f"## {heading}", table.markdown]
    Path(folder, "report.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _interval(metrics: Mapping[str, float], key: str) -> str:
    if key not in metrics:
        return "-"
    interval = f" [{metrics[key + '_low']:.3f}, {metrics[key + '_high']:.3f}]" if f"{key}_low" in metrics else ""
    return f"{metrics[key]:.3f}{interval}"
