"""The report of an audit: `report.html`, from the template `report.html.j2`, and a summary for the terminal."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from autorater.audit.plots import audit_figure
from autorater.audit.predictions import Predictions
from autorater.audit.probes import PROBES
from autorater.audit.verdict import TESTS, audit_verdict, corrected_p_values, finding, p_text, trait_verdicts
from autorater.data.atomic import write_text
from autorater.data.messages import Message, plain_text
from autorater.metrics.position_audit import (
    compared,
    deviation_by_length,
    deviation_by_margin,
    only_verdicts,
    pair_means,
)
from autorater.metrics.preferences import pairs_for_effect
from autorater.report.glossary import GLOSSARY, FormattedValue, Metric, metrics_of
from autorater.report.rendering import data_uri, png, render
from autorater.report.tables import fixed_width, settings_rows
from autorater.report.text import visible_line

_OF_POSITION = ("first_slot_share", "second_slot_share", "primacy_share", "recency_share")
_NUMBERS = ("id", "probe", "p_ab", "p_ba", "symmetry_deviation")
_NAMES = {"prompt": "Prompt", "response_a": "Response A", "response_b": "Response B", "label": "Label"}
_GROUP_KEYS = ("consistency", "first_slot_share", "symmetry_deviation_mean")
_STRATUM_KEYS = ("consistency", "symmetry_deviation_mean", "symmetry_deviation_abs")


def write_audit_report(
    folder: str | Path,
    predictions: Mapping[str, Predictions],
    metrics: Mapping[str, Mapping[str, float]],
    groups: Mapping[str, Mapping[str, float]],
    flips: Sequence[Mapping[str, object]],
    n_flips: int,
    *,
    title: str,
    settings: Mapping[str, object],
) -> None:
    """Writes `report.html` to an existing folder.

    Args:
        predictions, metrics: By probe, metrics as from `autorater.audit.results.measure`; the first is the headline.
        groups: Metrics of the first probe by group.
        flips: The pairs to show, as in `flips.jsonl`, out of `n_flips`.
        title: Heading of the page.
        settings: Settings of the run by name; values of tokens, keys and passwords are hidden.
    """
    headline = next(iter(predictions))
    margins, lengths = _strata(predictions[headline])
    page = render(
        Path(__file__).with_name("report.html.j2"),
        title=title,
        verdict=audit_verdict(metrics[headline], headline),
        counts=counts_line(metrics[headline]),
        sections=[_section(probe, predictions[probe], metrics[probe]) for probe in predictions],
        sways=trait_verdicts(metrics.get("swap", {})),
        planning=planning_rows(metrics[headline], headline),
        effect=GLOSSARY["probes"][headline]["effect"],
        strata_header=[metric.label for metric in audit_metrics_of(headline, _STRATUM_KEYS)],
        margins=margins,
        lengths=lengths,
        group_header=_group_header(headline),
        groups=[(name, _group_values(group, headline)) for name, group in groups.items()],
        flips=[{**flip, "texts": _texts(flip)} for flip in flips],
        n_flips=n_flips,
        settings=settings_rows(settings),
    )
    write_text(Path(folder, "report.html"), page)


def audit_summary(metrics: Mapping[str, Mapping[str, float]], groups: Mapping[str, Mapping[str, float]]) -> str:
    """Metrics and findings as text for the terminal, without a final newline."""
    parts = []
    for probe, values in metrics.items():
        table = fixed_width([(f"  {metric.label}", value.text) for metric, value in audit_rows(values, probe)])
        sways = "".join(f"\n  {sentence}" for sentence in trait_verdicts(values))
        parts.append(f"{probe}: {audit_verdict(values, probe)}\n  {counts_line(values)}{sways}\n{table}")
    if groups:
        headline = next(iter(metrics))
        rows = [
            (visible_line(name, 60), *(value.value or "-" for value in _group_values(values, headline)))
            for name, values in groups.items()
        ]
        parts.append(fixed_width([("Group", *_group_header(headline)), *rows]))
    return "\n\n".join(parts)


def audit_metrics_of(probe: str, keys: Collection[str] | None = None) -> list[Metric]:
    """The metrics that a probe shows, of these keys; in all but `swap` they describe a change, not a position."""
    metrics = metrics_of("audit")
    if probe != "swap":
        of_change = {metric.key: metric for metric in metrics_of("audit_change")}
        metrics = [of_change.get(metric.key, metric) for metric in metrics if metric.key not in _OF_POSITION]
    words = GLOSSARY["probes"][probe]
    return [
        replace(metric, meaning=metric.meaning.format(**words)) for metric in metrics if not keys or metric.key in keys
    ]


def audit_rows(metrics: Mapping[str, float], probe: str) -> list[tuple[Metric, FormattedValue]]:
    """The metrics of a probe that are present, with their values as text."""
    return [
        (metric, FormattedValue(p_text(metrics[metric.key])) if metric.key in TESTS else metric.format(metrics))
        for metric in audit_metrics_of(probe)
        if metric.key in metrics
    ]


def planning_rows(metrics: Mapping[str, float], probe: str) -> list[tuple[Metric, str, str, str]]:
    """A metric, the smallest effect that these pairs show, an effect, and the number of pairs that show it."""
    rows = []
    for metric in audit_metrics_of(probe):
        effect = GLOSSARY["planning"].get(metric.key)
        if effect and (needed := pairs_for_effect(metrics, metric.key, effect)) is not None:
            seen = f"{metrics[f'{metric.key}_detectable']:.{metric.decimals}f}"
            rows.append((metric, seen, f"{effect:g}", f"{needed:,.0f}"))
    return rows


def counts_line(metrics: Mapping[str, float]) -> str:
    """How many pairs were compared, and how many were left out and why, if any."""
    reasons = {"n_unparsed": "unparsed", "n_refused": "refused", "n_not_asked": "not judged"}
    left_out = ", ".join(f"{metrics[key]:,.0f} {reason}" for key, reason in reasons.items())
    answers = f"{metrics['n_unparsed_answers']:,.0f} unparsed and {metrics['n_refused_answers']:,.0f} refused answers"
    again = metrics.get("n_repeated_rows", 0)
    repeated = f" ({again:,.0f} rows show one of them again and are resampled with it)" if again else ""
    compared = f"{metrics['n_pairs']:,.0f} pairs compared{repeated}"
    if not any(metrics[key] for key in (*reasons, "n_unparsed_answers", "n_refused_answers")):
        return f"{compared}."
    return f"{compared}; left out: {left_out} (in total {answers})."


def _section(probe: str, predictions: Predictions, metrics: Mapping[str, float]) -> dict[str, object]:
    p_ab, p_ba = pair_means(_compared(predictions)[0])
    return {
        "title": f"{probe.capitalize()}: {GLOSSARY['probes'][probe]['change']}",
        "verdict": audit_verdict(metrics, probe),
        "rows": audit_rows(metrics, probe),
        "picture": data_uri(png(audit_figure(p_ab, p_ba, probe))) if len(p_ab) else "",
    }


def _compared(predictions: Predictions) -> tuple[np.ndarray, np.ndarray]:
    """The answers and lengths of the pairs with a repetition in both orders."""
    kept = compared(predictions.answers).any(axis=1)
    return predictions.answers[kept], predictions.pairs.lengths[kept]


def _strata(predictions: Predictions) -> tuple[list[dict], list[dict]]:
    answers, lengths = _compared(predictions)
    if not len(answers):
        return [], []
    by_margin = [] if only_verdicts(answers) else deviation_by_margin(answers)
    return by_margin, deviation_by_length(answers, *lengths.T) if (lengths > 0).all() else []


def _group_header(probe: str) -> list[str]:
    return ["Pairs", "Left out", *(metric.label for metric in audit_metrics_of(probe, _GROUP_KEYS)), "p", "Finding"]


def _group_values(metrics: Mapping[str, float], probe: str) -> list[FormattedValue]:
    n_left_out = metrics["n_unparsed"] + metrics["n_refused"] + metrics["n_not_asked"]
    counts = [FormattedValue(f"{n:,.0f}") for n in (metrics["n_pairs"], n_left_out)]
    p_value = p_text(min(corrected_p_values(metrics).values())) if metrics["n_pairs"] else ""
    values = [metric.format(metrics) for metric in audit_metrics_of(probe, _GROUP_KEYS)]
    return [*counts, *values, FormattedValue(p_value), FormattedValue(finding(metrics, probe))]


def _texts(flip: Mapping[str, object]) -> list[tuple[str, str]]:
    texts = []
    for name, value in flip.items():
        if name == "answers" and isinstance(value, dict) and set(value) <= set(PROBES[flip["probe"]].orders):
            shown = ((order, text) for order, answers in value.items() for text in answers if text)
            texts += [(f"Answer, presentation {order}", str(text)) for order, text in shown]
        elif name not in _NUMBERS and value not in (None, ""):
            is_conversation = isinstance(value, list) and all(
                isinstance(part, dict) and set(part) == {"role", "content"} for part in value
            )
            is_text = is_conversation and bool(value)
            number = round(value, 3) if isinstance(value, float) else value
            text = plain_text(tuple(Message(**part) for part in value)) if is_text else str(number)
            texts.append((_NAMES.get(name, name), text))
    return texts
