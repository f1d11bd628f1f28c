"""The metrics an audit shows: name, meaning in one line, number format. One list for page and terminal."""

from __future__ import annotations

from collections.abc import Mapping

from autorater.audit.verdict import TESTS, p_text
from autorater.report.glossary import Cell, Metric, cell

AUDIT_METRICS = (
    Metric("consistency", "Consistency", "share of pairs with the same winner in both readings", "higher"),
    Metric("flip_rate", "Flip rate", "1 − consistency", "lower"),
    Metric("first_slot_share", "First-slot share", "of all verdicts but ties; 0.5 is fair", None),
    Metric("second_slot_share", "Second-slot share", "its complement", None),
    Metric("primacy_share", "Primacy share", "pairs whose verdicts lean to the first slot", "lower"),
    Metric("recency_share", "Recency share", "pairs whose verdicts lean to the second slot", "lower"),
    Metric("preference_fairness", "Preference fairness", "recency − primacy, in [−1, 1]", "zero"),
    Metric("symmetry_deviation_mean", "Slot bias, mean SD", "above 0: favours the second slot", "zero"),
    Metric("symmetry_deviation_abs", "Slot bias, mean |SD|", "how far swapping moves answers", "lower"),
    Metric("logit_shift", "Logit shift", "log-odds that the second slot adds to an answer", "zero"),
    Metric("sharpness", "Sharpness", "variance of the answers; |SD| shrinks with it", None, 4),
    Metric("accuracy", "Accuracy", "share of readings whose winner is the label's", "higher"),
    Metric("position_consistent_accuracy", "Accuracy in both orders", "right in both readings", "higher"),
    Metric(
        "repetition_stability", "Repetition stability", "share of the commonest verdict when asked again", "higher"
    ),
    Metric("repeated_flip_rate", "Flip rate, repeated", "winner changes when only asked again: noise", "lower"),
    Metric("repeated_spread", "Spread, repeated", "standard deviation when only asked again: noise", "lower"),
    Metric("slot_effect", "Slot effect beyond noise", "root mean square of SD, noise removed", "lower"),
    Metric("p_value_verdicts", "p-value, verdicts", "exact sign-flip test of no slot being favoured", None),
    Metric("p_value_probabilities", "p-value, probabilities", "the same test on SD", None),
    Metric("p_value_any_slot", "p-value, any slot", "permutation test of no pair caring for its order", None),
    Metric("parse_rate", "Readable answers", "probability that an answer can be read", "higher"),
)


def audit_rows(metrics: Mapping[str, float]) -> list[tuple[Metric, Cell]]:
    """The metrics that are there, with their values as text."""
    return [
        (metric, Cell(p_text(metrics[metric.key])) if metric.key in TESTS else cell(metric, metrics))
        for metric in AUDIT_METRICS
        if metric.key in metrics
    ]
