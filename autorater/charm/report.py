"""The report of a CHARM run: `report.html`, `report.md`, the table at the end of the run, a figure of win rates.

Versions of a reward model are shown side by side, the original first. A table is a list of rows, the header first; the
first column names the row.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from autorater.charm.calibration import Calibration
from autorater.charm.elo import Rating
from autorater.charm.evaluation import RewardEvaluation
from autorater.data.atomic import write_text
from autorater.report.glossary import Metric
from autorater.report.plots import BLUE, ORANGE, blank_figure, unit_square
from autorater.report.rendering import data_uri, png, render
from autorater.report.tables import markdown_table, settings_rows

Table = list[tuple[str, ...]]
TEMPLATE = Path(__file__).with_name("report.html.j2")
_OTHERS, _OVERVALUED = BLUE, ORANGE
ALIGN = "lr"


def versions_table(versions: Mapping[str, RewardEvaluation], overvalued: str, reference: str) -> Table:
    """The metrics of the versions, one column per version."""
    rows = {
        "accuracy": lambda e: _shown("accuracy", e.accuracy),
        "mismatch, all pairs": lambda e: f"{e.metrics()['mismatch']:.3f}",
        f"mismatch, {overvalued}": lambda e: f"{e.mismatch[overvalued]:.3f}",
        f"mismatch, {overvalued} : {reference}": lambda e: f"{e.between(overvalued, reference).mismatch:.3f}",
        "Pearson with Elo": lambda e: _shown("pearson", e.correlations),
        "Spearman with Elo": lambda e: _shown("spearman", e.correlations),
    }
    return [("", *versions), *((name, *map(text, versions.values())) for name, text in rows.items())]


def models_table(versions: Mapping[str, RewardEvaluation], ratings: Mapping[str, Rating]) -> Table:
    """Elo, and gap and mismatch in every version, of every model; the strongest model first."""
    first = next(iter(versions.values()))
    rows: Table = [("model", "Elo", *(f"{name}, {version}" for name in ("gap", "MD") for version in versions))]
    for model in sorted(first.gaps, key=lambda model: -ratings[model].elo):  # those that share a prompt with another
        rating = ratings[model]
        interval = "" if rating.low is None else f" [{rating.low:.0f}, {rating.high:.0f}]"
        gaps = (f"{e.gaps[model]:+.3f}" for e in versions.values())
        mismatch = (f"{e.mismatch[model]:.3f}" for e in versions.values())
        rows.append((model, f"{rating.elo:.0f}{interval}", *gaps, *mismatch))
    return rows


def pairs_table(versions: Mapping[str, RewardEvaluation]) -> Table:
    """Win rates of every two models; the largest mismatch of the first version first."""
    first = next(iter(versions.values()))
    rows: Table = [("pair", "prompts", "expected", *versions)]
    for row in sorted(first.rows, key=lambda row: -row.mismatch):
        rates = (_shown("judged", vars(e.between(row.model, row.opponent))) for e in versions.values())
        rows.append((f"{row.model} : {row.opponent}", f"{row.n_pairs:,}", f"{row.expected:.3f}", *rates))
    return rows


def prepare_win_rates(evaluation: RewardEvaluation, overvalued: str) -> dict[str, np.ndarray]:
    """Both sides of every row: `expected` and `judged`, shape (2 R,), and `marked` where the model is `overvalued`."""
    rows = evaluation.rows
    expected, judged = (np.array([getattr(row, name) for row in rows]) for name in ("expected", "judged"))
    marked = [getattr(row, side) == overvalued for side in ("model", "opponent") for row in rows]
    return {
        "expected": np.concatenate([expected, 1 - expected]),
        "judged": np.concatenate([judged, 1 - judged]),
        "marked": np.array(marked),
    }


def win_rates_figure(versions: Mapping[str, RewardEvaluation], overvalued: str) -> Figure:
    """Win rate against expected win rate, one panel per version."""
    figure = blank_figure((4.2 * max(len(versions), 2), 4.4))
    panels = figure.subplots(1, len(versions), squeeze=False)[0]
    for axes, (version, evaluation) in zip(panels, versions.items(), strict=True):
        x, y, marked = prepare_win_rates(evaluation, overvalued).values()
        unit_square(axes, version, "win rate by Elo", "win rate by the reward model")
        axes.scatter(x[~marked], y[~marked], s=26, facecolors="none", edgecolors=_OTHERS, linewidths=1.2, zorder=2)
        axes.scatter(x[marked], y[marked], s=34, color=_OVERVALUED, zorder=3)
    return figure


def headline(versions: Mapping[str, RewardEvaluation], overvalued: str) -> str:
    """The result in a sentence or two: the gap of the model, and the effect of the calibration."""
    (_, original), *others = versions.items()
    gap, before = original.gaps[overvalued], original.mismatch[overvalued]
    result = (
        f"The reward model {'overvalues' if gap > 0 else 'undervalues'} {overvalued}: against the others it wins "
        f"{100 * abs(gap):.0f} points {'more' if gap > 0 else 'less'} often than expected from Elo."
    )
    if not others:
        return f"{result} Its mean Mismatch Degree is {before:.3f}."
    name, last = others[-1]
    result += f" Its mean Mismatch Degree goes from {before:.3f} to {last.mismatch[overvalued]:.3f} ({name})"
    if original.accuracy and last.accuracy:
        change = 100 * (last.accuracy["accuracy"] - original.accuracy["accuracy"])
        result += f", the accuracy on held-out votes changes by {change:+.1f} points"
    return f"{result}."


def write_charm_report(
    folder: str | Path,
    versions: Mapping[str, RewardEvaluation],
    ratings: Mapping[str, Rating],
    calibration: Calibration,
    settings: Mapping[str, object],
) -> None:
    """Writes `report.html` and `report.md`.

    `versions` are evaluations on the same responses, the original first; a diagnosis has only one. Of the settings,
    the values of tokens, keys and passwords are hidden.
    """
    overvalued, reference = calibration.overvalued, calibration.reference
    title = "CHARM: reward models calibrated by Elo" if len(versions) > 1 else "Reward model against Elo"
    tables = {
        "Versions" if len(versions) > 1 else "The reward model": versions_table(versions, overvalued, reference),
        "Models": models_table(versions, ratings),
        "Pairs of models": pairs_table(versions),
    }
    page = render(
        TEMPLATE,
        title=title,
        headline=headline(versions, overvalued),
        calibration=calibration.text,
        overvalued=overvalued,
        reference=reference,
        tables=tables,
        picture=data_uri(png(win_rates_figure(versions, overvalued))),
        settings=settings_rows(settings),
    )
    write_text(Path(folder, "report.html"), page)
    parts = [f"# {title}", headline(versions, overvalued), calibration.text]
    for heading, (header, *rows) in tables.items():
        parts += [f"## {heading}", markdown_table(header, rows, ALIGN)]
    write_text(Path(folder, "report.md"), "\n\n".join(parts) + "\n")


def _shown(key: str, metrics: Mapping[str, float | None]) -> str:
    """A metric with its interval, if there is one; a dash without the metric."""
    return Metric(key, key).format(metrics).text
