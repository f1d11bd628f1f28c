"""The report of a comparison of judging methods: `report.html`, `reliability.png` and a table for the terminal.

Measuring, and the choice of the best variant, are in `autorater.evaluation.methods`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from autorater.data.atomic import write_bytes, write_text
from autorater.evaluation.judge import Evaluation
from autorater.metrics.groups import GroupMetrics
from autorater.metrics.systems import WinRate
from autorater.report.breakdown import worst_pairs
from autorater.report.comparison_plots import COLORS, groups_figure, ranking_figure, tradeoff_figure
from autorater.report.glossary import GLOSSARY, METRICS, Metric, metrics_of
from autorater.report.headline import constant_answers, paired_gain, perfect_judge
from autorater.report.plots import order_swap_figure, reliability_figure
from autorater.report.rendering import TEMPLATES, data_uri, png, render
from autorater.report.tables import fixed_width
from autorater.report.text import visible_line

if TYPE_CHECKING:
    from autorater.evaluation.methods import Entry

_METHODS, _COLUMNS = GLOSSARY["methods"], GLOSSARY["columns"]
_POSITION = ("consistency", "flip_rate", "first_slot_share", "symmetry_deviation_mean", "symmetry_deviation_abs")
_TERMINAL_COLUMNS = ("ece", "agreement", "consistency", "symmetry_deviation_abs")
_METRICS = {metric.key: metric for metric in METRICS}
_PANEL = (4.7, 5.0)  # inches


def write_comparison_report(
    folder: str | Path,
    entries: Sequence[Entry],
    best: Entry,
    compared: Sequence[Entry],
    *,
    groups: Mapping[str, Sequence[GroupMetrics]],
    win_rates: Sequence[WinRate] = (),
    systems: Mapping[str, object] | None = None,
    summary: str,
) -> None:
    """Writes `reliability.png` and `report.html`.

    Args:
        folder: An existing folder.
        entries: All of the same pairs; entries of the same method are adjacent.
        best: The entry that the details (groups, win rates, worst pairs) are about.
        compared: The entry that stands for each judge in the headline.
        groups, win_rates: Its metrics by kind of groups, the worst group first, and its win rates of models.
        systems: What `autorater.report.systems` shows, if pairs name systems.
        summary: The data in one line.
    """
    available = _available(entries)
    families = dict.fromkeys(map(_family, available))
    colors = {family: COLORS[i % len(COLORS)] for i, family in enumerate(families)}  # repeat if there are not enough
    dots = [colors[_family(entry)] for entry in available]
    evaluations = [entry.evaluation for entry in available]
    reference, score = available[0], _score(best)
    ranked = {metric.key: metric.label for metric in (score, _METRICS["ece"])}
    plain = [entry for entry in available if not entry.steps]
    panels = [(full_name(e), colors[_family(e)], e.evaluation) for e in [*plain, *([best] if best.steps else [])]]
    shown = panels[-4:]  # in reliability.png, side by side
    reliability = png(reliability_figure(shown, (1.02 * _PANEL[0] * len(shown), _PANEL[1])))
    legend = {_family_name(entry): colors[_family(entry)] for entry in plain}
    page = render(
        TEMPLATES / "comparison.html.j2",
        title="Judging methods compared",
        headline=comparison_headline(entries, best, compared),
        summary=summary,
        has_truth=best.evaluation.truth is not None,
        columns=[(score.label, score), *((label, _METRICS[key]) for key, label in _COLUMNS.items())],
        methods=list(_method_rows(entries, colors)),
        best=best,
        reference=full_name(reference),
        reliability=[data_uri(png(reliability_figure([panel], _PANEL))) for panel in panels],
        order_swap=[data_uri(png(order_swap_figure([panel], _PANEL))) for panel in panels],
        ranking=data_uri(png(ranking_figure(list(map(full_name, available)), dots, evaluations, ranked))),
        tradeoff=data_uri(png(tradeoff_figure(evaluations, dots, legend))),
        groups=data_uri(png(groups_figure(groups))) if groups else "",
        worst_group=_worst_group(groups) if groups else "",
        win_rates=[vars(row) for row in win_rates],
        systems=systems,
        systems_by=full_name(compared[0]),
        win_rate_metrics=metrics_of("win_rates"),
        worst=worst_pairs(reference.evaluation, best.evaluation),
    )
    write_bytes(Path(folder, "reliability.png"), reliability)
    write_text(Path(folder, "report.html"), page)


def full_name(entry: Entry) -> str:
    """Method and post-processing in one line: `Verbalized, swap averaging + isotonic`."""
    return f"{_family_name(entry)}, {_variant_name(entry)}" if entry.steps else _family_name(entry)


def comparison_headline(entries: Sequence[Entry], best: Entry, compared: Sequence[Entry]) -> str:
    """The judges that were named, against the first of them and constant answers; then the best row of all."""
    metric, reference = _score(best), compared[0]
    label = metric.label if metric.key == "brier" else metric.label[0].lower() + metric.label[1:]
    sentences = []
    for entry in compared:
        metrics = entry.evaluation.metrics
        sentence = (
            f"“{full_name(entry)}” has {label} {metric.format(metrics).text} "
            f"({constant_answers(metrics, metric.key)}) and calibration error {metrics['ece']:.3f}"
            f"{perfect_judge(metrics)}"
        )
        if entry is not reference:
            gain, low, high = paired_gain(reference.evaluation, entry.evaluation)
            verdict = "better" if low > 0 else "worse" if high < 0 else "not clearly different"
            sentence += f"; against the first it is {verdict}, by {gain:.4f} [{low:.4f}, {high:.4f}]"
        sentences.append(f"{sentence}.")
    if best not in compared:
        sentences.append(
            f"The best of {len(_available(entries))} rows, chosen on these pairs and therefore slightly optimistic, "
            f"is “{full_name(best)}” with {best.evaluation.metrics[metric.key]:.4f}."
        )
    if unavailable := len(entries) - len(_available(entries)):
        sentences.append(f"Not available: {unavailable} method{'s' if unavailable > 1 else ''}.")
    return " ".join(sentences)


def comparison_table(entries: Sequence[Entry], best: Entry) -> str:
    """The comparison as fixed-width text without a final newline; a star marks the best row."""
    score = _score(best)
    rows: list[tuple[str, ...] | str] = [("", score.label, *(_COLUMNS[key] for key in _TERMINAL_COLUMNS))]
    for _, members in groupby(entries, key=_family):
        members = list(members)
        reason = members[0].reason
        rows.append(_family_name(members[0]) + (f": not available, {visible_line(reason)}" if reason else ""))
        for entry in _available(members):
            metrics = entry.evaluation.metrics
            name = f"{'*' if entry is best else ' '} {_variant_name(entry)}"
            fixed = by_construction(entry)
            values = ("-" if key in fixed else f"{metrics.get(key, float('nan')):.3f}" for key in _TERMINAL_COLUMNS)
            rows.append((name, score.format(metrics).text, *values))
    return fixed_width(rows)


def by_construction(entry: Entry) -> Collection[str]:
    """Metrics of an entry that no judge could change: both orders are the same answer, or all answers are."""
    judgments = entry.evaluation.judgments
    if np.ptp(judgments.mean) < 1e-9:
        return (*_POSITION, "agreement")
    return _POSITION if np.abs(judgments.p_ab + judgments.p_ba - 1).max() < 1e-9 else ()


def _remark(entry: Entry) -> str:
    if not (found := by_construction(entry)):
        return ""
    if "agreement" in found:
        return f"always answers {entry.evaluation.judgments.mean[0, 0]:.2f}"
    return "no position bias by construction"


def _available(entries: Sequence[Entry]) -> list[Entry]:
    return [entry for entry in entries if entry.evaluation is not None]


def _score(best: Entry) -> Metric:
    return _METRICS["brier" if best.evaluation.truth is None else "excess_brier"]


def _family(entry: Entry) -> tuple[str, str]:
    return entry.judge, entry.method


def _family_name(entry: Entry) -> str:
    name = _METHODS.get(entry.method, {"label": entry.method})["label"]
    return f"{visible_line(entry.judge, 40)}: {name}" if entry.judge else name


def _variant_name(entry: Entry) -> str:
    return " + ".join(GLOSSARY["post_processing"][step] for step in entry.steps) or "no post-processing"


def _method_rows(entries: Sequence[Entry], colors: Mapping[tuple[str, str], str]) -> Iterator[dict]:
    """The table's rows by method of a judge; a method that is not available has none."""
    reference = _available(entries)[0].evaluation
    for family, members in groupby(entries, key=_family):
        members = list(members)
        yield {
            "name": _family_name(members[0]),
            "meaning": _METHODS.get(members[0].method, {"meaning": ""})["meaning"],
            "color": colors.get(family, ""),
            "reason": members[0].reason,
            "rows": [
                {
                    "name": _variant_name(entry),
                    "entry": entry,
                    "change": _change(reference, entry.evaluation),
                    "remark": _remark(entry),
                    "by_construction": by_construction(entry),
                }
                for entry in _available(members)
            ],
        }


def _change(reference: Evaluation, evaluation: Evaluation) -> str:
    _, low, high = paired_gain(reference, evaluation)
    return "better" if low > 0 else "worse" if high < 0 else ""


def _worst_group(groups: Mapping[str, Sequence[GroupMetrics]]) -> str:
    """The group whose ECE is farthest above its noise floor, in a sentence."""

    def excess(kind: str) -> float:
        metrics = groups[kind][0].metrics
        return metrics["ece"] - metrics.get("ece_noise_floor", 0.0)

    kind = max(groups, key=excess)
    return f"Worst by {kind}: {groups[kind][0].name}, ECE {groups[kind][0].metrics['ece']:.3f}."
