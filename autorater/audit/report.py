"""The page of an audit (`report.html`), and what is printed at its end.

How a page is kept harmless and in one file is in `rendering`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from autorater.audit.glossary import audit_rows
from autorater.audit.plots import audit_figure
from autorater.audit.predictions import Readings
from autorater.audit.probes import PROBES
from autorater.audit.template import AUDIT_PAGE
from autorater.audit.verdict import audit_verdict, corrected_p_values, finding, p_text
from autorater.metrics.position_audit import compared, only_verdicts, pair_means
from autorater.metrics.position_strata import Stratum, deviation_by_length, deviation_by_margin
from autorater.report.glossary import Cell, Metric, cell
from autorater.report.rendering import FOLD, data_uri, png, render
from autorater.report.tables import settings_rows
from autorater.report.text import visible_line

_NOT_TEXTS = ("id", "probe", "p_ab", "p_ba", "symmetry_deviation", "said")
_NAMES = {"prompt": "Prompt", "response_a": "Response A", "response_b": "Response B"}
_GROUP_METRICS = (
    Metric("consistency", "Consistency", "", None),
    Metric("first_slot_share", "First-slot share", "", None),
    Metric("symmetry_deviation_mean", "Mean SD", "", "zero"),
)
_GROUP_HEADS = ("Pairs", "Left out", "Consistency", "First-slot share", "Mean SD", "p", "Finding")


@dataclass(frozen=True)
class Flip:
    """A pair that flips, as it is shown."""

    id: str
    probe: str
    p_ab: float
    p_ba: float
    deviation: float
    texts: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Section:
    """A probe: its metrics, its sentence and its picture (empty if there is none)."""

    title: str
    verdict: str
    rows: list[tuple[Metric, Cell]]
    picture: str


def write_audit_report(
    folder: str | Path,
    readings: Mapping[str, Readings],
    metrics: Mapping[str, Mapping[str, float]],
    groups: Mapping[str, Mapping[str, float]],
    flips: Sequence[Mapping[str, object]],
    n_flips: int,
    *,
    title: str,
    settings: Mapping[str, object],
) -> None:
    """Writes `report.html`.

    Args:
        folder: An existing folder.
        readings: What the judge said, by probe; the first probe is the headline.
        metrics: The figures of `autorater.audit.results.measure`, by probe.
        groups: The same by group, of the first probe.
        flips: The pairs to show, as in `flips.jsonl`, of all `n_flips`.
        title: Heading of the page.
        settings: What the run was told, by name; values are shown as text, those of tokens and keys are hidden.
    """
    headline, *_ = readings
    margins, lengths = _strata(readings[headline])
    page = render(
        AUDIT_PAGE,
        title=title,
        verdict=audit_verdict(metrics[headline], headline),
        counts=counts_line(metrics[headline]),
        sections=[_section(name, readings[name], metrics[name]) for name in readings],
        margins=margins,
        lengths=lengths,
        group_heads=_GROUP_HEADS,
        groups=[{"name": name, "cells": _group_cells(group)} for name, group in groups.items()],
        flips=[_shown(flip) for flip in flips],
        n_flips=n_flips,
        settings=settings_rows(settings),
        fold=FOLD,
    )
    Path(folder, "report.html").write_text(page, encoding="utf-8")


def audit_summary(metrics: Mapping[str, Mapping[str, float]], groups: Mapping[str, Mapping[str, float]]) -> str:
    """Metrics and findings as text for the terminal, without a final newline."""
    lines = []
    for probe, figures in metrics.items():
        lines += [f"{probe}: {audit_verdict(figures, probe)}", f"  {counts_line(figures)}"]
        lines += [f"  {metric.label:<25} {cell.text}" for metric, cell in audit_rows(figures)]
    if groups:
        cells = {visible_line(name, 60): _group_cells(figures) for name, figures in groups.items()}
        table = [("group", *_GROUP_HEADS), *((name, *(c.value or "-" for c in row)) for name, row in cells.items())]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines += ["", *("  ".join(map(str.ljust, row, widths)).rstrip() for row in table)]
    return "\n".join(lines)


def counts_line(metrics: Mapping[str, float]) -> str:
    """How many pairs were compared, and how many were left out and why."""
    reasons = {"n_unparsed": "without a readable answer", "n_refused": "refused", "n_not_asked": "not asked"}
    left_out = [f"{metrics[key]:,.0f} {words}" for key, words in reasons.items()]
    answers = (
        f"{metrics['n_unparsed_answers']:,.0f} unreadable and {metrics['n_refused_answers']:,.0f} refused answers"
    )
    return f"{metrics['n_pairs']:,.0f} pairs compared; left out: {', '.join(left_out)} ({answers} in all)."


def _section(probe: str, readings: Readings, metrics: Mapping[str, float]) -> Section:
    p_ab, p_ba = _compared_means(readings)
    picture = data_uri(png(audit_figure(p_ab, p_ba))) if len(p_ab) else ""
    title = f"{probe.capitalize()}: {PROBES[probe].change}"
    return Section(title, audit_verdict(metrics, probe), audit_rows(metrics), picture)


def _compared_means(readings: Readings):
    kept = compared(readings.answers).any(axis=1)
    return pair_means(readings.answers[kept])


def _strata(readings: Readings) -> tuple[list[Stratum], list[Stratum]]:
    p_ab, p_ba = _compared_means(readings)
    if not len(p_ab):
        return [], []
    by_margin = [] if only_verdicts(p_ab, p_ba) else deviation_by_margin(p_ab, p_ba)
    lengths = readings.catalogue.lengths[compared(readings.answers).any(axis=1)]
    by_length = deviation_by_length(p_ab, p_ba, *lengths.T) if (lengths > 0).all() else []
    return by_margin, by_length


def _group_cells(metrics: Mapping[str, float]) -> list[Cell]:
    n_unread = metrics["n_unparsed"] + metrics["n_refused"] + metrics["n_not_asked"]
    counts = [Cell(f"{metrics['n_pairs']:,.0f}"), Cell(f"{n_unread:,.0f}")]
    figures = [cell(metric, metrics) for metric in _GROUP_METRICS]
    p_value = Cell(p_text(min(corrected_p_values(metrics).values()))) if metrics["n_pairs"] else Cell()
    return [*counts, *figures, p_value, Cell(finding(metrics))]


def _shown(flip: Mapping[str, object]) -> Flip:
    texts = [
        (_NAMES.get(name, name), str(value))
        for name, value in flip.items()
        if name not in _NOT_TEXTS and value not in (None, "")
    ]
    for order, said in flip.get("said", {}).items():
        texts += [(f"Said in reading {order}", str(text)) for text in said if text]
    numbers = (float(flip[name]) for name in ("p_ab", "p_ba", "symmetry_deviation"))
    return Flip(str(flip["id"]), str(flip["probe"]), *numbers, tuple(texts))
