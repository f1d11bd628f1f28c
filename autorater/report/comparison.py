"""A comparison of judging methods as a person reads it: `report.html`, `reliability.png`, a table for the terminal.

What is compared, and which row is the best, was computed before (`autorater.evaluation.methods`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from autorater.metrics.groups import GroupMetrics
from autorater.metrics.systems import WinRate
from autorater.report.comparison_plots import COLORS, groups_figure, ranking_figure, tradeoff_figure
from autorater.report.comparison_template import COMPARISON
from autorater.report.glossary import METRICS, Cell, Metric, cell
from autorater.report.headline import paired_gain
from autorater.report.plots import order_swap_panels, reliability_panels
from autorater.report.rendering import FOLD, data_uri, png, render
from autorater.report.tables import worst_pairs
from autorater.report.text import visible_line

if TYPE_CHECKING:
    from autorater.evaluation.methods import Entry

_METHODS = {
    "verbalized": ("Verbalized", "the number that greedy decoding says"),
    "verbalized_reasoning": ("Verbalized with reasoning", "the same, behind reasoning"),
    "self_consistency": ("Self-consistency", "the share of sampled answers on one side"),
    "self_consistency_reasoning": ("Self-consistency with reasoning", "the same, each behind a reasoning of its own"),
    "letter_logits": ("A/B-token logits", "asked for a letter, read off the next token"),
    "answer_mean": ("Exact answer mean", "the mean of the exact distribution over answers"),
    "answer_mean_as_saved": ("Exact answer mean, as saved", "with the recalibration that was saved with the judge"),
}
_STEPS = {
    "swap": "swap averaging",
    "temperature": "temperature",
    "odd_temperature": "odd temperature",
    "platt": "Platt",
    "isotonic": "isotonic",
    "contextual": "contextual calibration",
    "batch": "batch calibration",
}
_AS_IT_IS = "as it is"
_COLUMNS = {
    "log_loss": "Log loss",
    "ece": "ECE",
    "agreement": "Agreement",
    "consistency": "Consistency",
    "symmetry_deviation_abs": "|SD|",
    "sharpness": "Sharpness",
    "parse_rate": "Readable",
}
_METRICS = {metric.key: metric for metric in METRICS}
_UNSUITED = 0.5  # share of readable answers below which a method says more about the wording than about the judge
_PANEL = (4.7, 5.0)  # inches
_N_PANELS = 4  # side by side in reliability.png


@dataclass(frozen=True)
class VariantRow:
    """One row of the table: what is on top, its metrics, and whether it differs from the reference."""

    name: str
    cells: list[Cell]
    fitted: str
    change: Literal["better", "worse", ""]
    best: bool


@dataclass(frozen=True)
class MethodRows:
    """All rows of a method of a judge, or the reason why there are none."""

    name: str
    meaning: str
    color: str
    rows: list[VariantRow]
    reason: str


def write_comparison_report(
    folder: str | Path,
    entries: Sequence[Entry],
    best: Entry,
    *,
    groups: Mapping[str, Sequence[GroupMetrics]],
    win_rates: Sequence[WinRate] = (),
    title: str,
    summary: str,
) -> None:
    """Writes `reliability.png` and `report.html`.

    Args:
        folder: An existing folder.
        entries: Of the same pairs, those of a method side by side.
        best: The one of them that is looked at more closely.
        groups: Its metrics by kind of groups, the worst group first.
        win_rates: Its win rates of models.
        title: Heading of the page.
        summary: What was measured on what, in a line.
    """
    available = _available(entries)
    colors, reference = _colors(entries), available[0]
    dots = [colors[_family(entry)] for entry in available]
    evaluations = [entry.evaluation for entry in available]
    columns = [(_headline(best).label, _headline(best)), *((label, _METRICS[key]) for key, label in _COLUMNS.items())]
    plain = [entry for entry in available if not entry.steps]
    panels = [(full_name(e), colors[_family(e)], e.evaluation) for e in [*plain, *([best] if best.steps else [])]]
    reliability = png(
        reliability_panels(panels[-_N_PANELS:], (1.02 * _PANEL[0] * len(panels[-_N_PANELS:]), _PANEL[1]))
    )
    ranked = {_headline(best).key: _headline(best).label, "ece": _METRICS["ece"].label}
    page = render(
        COMPARISON,
        title=title,
        verdict=comparison_verdict(entries, best),
        summary=summary,
        has_truth=best.evaluation.truth is not None,
        columns=columns,
        methods=list(_method_rows(entries, best, [metric for _, metric in columns], colors)),
        reference=full_name(reference),
        ranking=data_uri(png(ranking_figure([full_name(e) for e in available], dots, evaluations, ranked))),
        reliability=[data_uri(png(reliability_panels([panel], _PANEL))) for panel in panels],
        order_swap=[data_uri(png(order_swap_panels([panel], _PANEL))) for panel in panels],
        tradeoff=data_uri(
            png(tradeoff_figure(evaluations, dots, {_family_name(e): colors[_family(e)] for e in plain}))
        ),
        groups=data_uri(png(groups_figure(groups))) if groups else "",
        worst_group=_worst_group(groups),
        win_rates=[_win_rate_row(row) for row in win_rates],
        worst=worst_pairs(reference.evaluation, best.evaluation),
        fold=FOLD,
    )
    Path(folder, "reliability.png").write_bytes(reliability)
    Path(folder, "report.html").write_text(page, encoding="utf-8")


def full_name(entry: Entry) -> str:
    """A row's name where it stands alone: `Verbalized, swap averaging + isotonic`."""
    return f"{_family_name(entry)}, {_variant_name(entry)}" if entry.steps else _family_name(entry)


def comparison_verdict(entries: Sequence[Entry], best: Entry) -> str:
    """Which row is the best, by how much, and how calibrated it is; computed from the figures alone."""
    metric, reference = _headline(best), _available(entries)[0]
    metrics = best.evaluation.metrics
    n_rows = len(_available(entries))
    sentence = f"Of {n_rows} rows the best is “{full_name(best)}”: {_lower(metric.label)} {cell(metric, metrics).text}"
    if best is not reference:
        gain, low, high = paired_gain(reference.evaluation, best.evaluation)
        beyond = "no clear difference" if low <= 0 <= high else "beyond chance"
        sentence += (
            f", where “{full_name(reference)}” has {reference.evaluation.metrics[metric.key]:.4f}; "
            f"the difference is {gain:.4f} [{low:.4f}, {high:.4f}], {beyond}"
        )
    floor = metrics.get("ece_noise_floor")
    beside = "" if floor is None else f", and a perfect judge would show {floor:.3f}"
    unavailable = len(entries) - n_rows
    missing = f" Not available: {unavailable} method{'s' if unavailable > 1 else ''}." if unavailable else ""
    return f"{sentence}. Its calibration error is {metrics['ece']:.3f}{beside}.{missing}"


def _lower(label: str) -> str:
    return label[0].lower() + label[1:]


def comparison_table(entries: Sequence[Entry], best: Entry) -> str:
    """The comparison as fixed-width text without a final newline; a star marks the best row."""
    headline = _headline(best)
    keys = {"ece": "ECE", "agreement": "agree", "consistency": "consist", "symmetry_deviation_abs": "|SD|"}
    lines: list[tuple[str, ...] | str] = [("", headline.label, *keys.values())]
    for _, members in groupby(entries, key=_family):
        members = list(members)
        lines.append(
            _family_name(members[0])
            + (f": not available, {visible_line(members[0].reason)}" if members[0].reason else "")
        )
        for entry in members:
            if entry.evaluation is None:
                continue
            metrics = entry.evaluation.metrics
            name = f"{'*' if entry is best else ' '} {_variant_name(entry)}"
            lines.append(
                (name, cell(headline, metrics).text, *(f"{metrics.get(key, float('nan')):.3f}" for key in keys))
            )
    tuples = [line for line in lines if isinstance(line, tuple)]
    widths = [max(len(line[column]) for line in tuples) for column in range(len(tuples[0]))]
    return "\n".join(
        line if isinstance(line, str) else "  ".join(map(str.ljust, line, widths)).rstrip() for line in lines
    )


def _available(entries: Sequence[Entry]) -> list[Entry]:
    return [entry for entry in entries if entry.evaluation is not None]


def _headline(best: Entry) -> Metric:
    return _METRICS["brier" if best.evaluation.truth is None else "excess_brier"]


def _family(entry: Entry) -> tuple[str, str]:
    return entry.judge, entry.method


def _family_name(entry: Entry) -> str:
    name = _METHODS.get(entry.method, (entry.method, ""))[0]
    return f"{visible_line(entry.judge, 40)}: {name}" if entry.judge else name


def _variant_name(entry: Entry) -> str:
    return " + ".join(_STEPS[step] for step in entry.steps) or _AS_IT_IS


def _colors(entries: Sequence[Entry]) -> dict[tuple[str, str], str]:
    """A colour for every method of every judge that is available; with more than there are colours, they repeat."""
    families = dict.fromkeys(_family(entry) for entry in _available(entries))
    return {family: COLORS[i % len(COLORS)] for i, family in enumerate(families)}


def _method_rows(
    entries: Sequence[Entry], best: Entry, columns: Sequence[Metric], colors: Mapping[tuple[str, str], str]
) -> Iterator[MethodRows]:
    reference = _available(entries)[0]
    for family, members in groupby(entries, key=_family):
        members = list(members)
        rows = [
            VariantRow(
                _variant_name(entry),
                [cell(metric, entry.evaluation.metrics) for metric in columns],
                "" if entry.recalibration is None else str(entry.recalibration),
                _change(reference, entry),
                entry is best,
            )
            for entry in _available(members)
        ]
        meaning = _METHODS.get(members[0].method, ("", ""))[1]
        if rows and (readable := members[0].evaluation.metrics["parse_rate"]) < _UNSUITED:
            meaning += f"; this model answers so with probability {readable:.3f}, so it is not the way to ask it"
        yield MethodRows(_family_name(members[0]), meaning, colors.get(family, ""), rows, members[0].reason)


def _change(reference: Entry, entry: Entry) -> Literal["better", "worse", ""]:
    _, low, high = paired_gain(reference.evaluation, entry.evaluation)
    if entry is reference or low <= 0 <= high:
        return ""
    return "better" if low > 0 else "worse"


def _worst_group(groups: Mapping[str, Sequence[GroupMetrics]]) -> str:
    """The worst group of all kinds, in a sentence."""
    if not groups:
        return ""
    kind, group = max(((kind, members[0]) for kind, members in groups.items()), key=lambda item: _excess(item[1]))
    return f"Worst by {kind}: {group.name}, ECE {group.metrics['ece']:.3f}."


def _excess(group: GroupMetrics) -> float:
    return group.metrics["ece"] - group.metrics.get("ece_noise_floor", 0.0)


@dataclass(frozen=True)
class _WinRateRow:
    models: str
    n_pairs: int
    cells: list[Cell]


def _win_rate_row(row: WinRate) -> _WinRateRow:
    cells = []
    for name, form in (("judged", ".3f"), ("voted", ".3f"), ("gap", "+.3f")):
        value, low, high = (getattr(row, name + end) for end in ("", "_low", "_high"))
        interval = f"[{low:{form}}, {high:{form}}]" if low is not None and high is not None else ""
        cells.append(Cell("–" if value is None else f"{value:{form}}", interval))
    return _WinRateRow(f"{row.model} / {row.opponent}", row.n_pairs, cells)
