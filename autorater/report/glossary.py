"""The metrics a report shows: name, meaning in one line, which way is better. One list for page, card and terminal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Better = Literal["lower", "higher", "zero"]

_SUFFIX = "_symmetrized"
_WORDS = {"lower": "lower is better", "higher": "higher is better", "zero": "nearer to 0 is better", None: ""}


@dataclass(frozen=True)
class Metric:
    """A metric as it is shown.

    Attributes:
        key: Key in the flat metrics, see `autorater.metrics.judge_metrics`.
        label: Short name, at most 27 characters.
        meaning: What it is, in one line.
        better: Which way is better, or None where neither is.
        decimals: Digits shown behind the point.
    """

    key: str
    label: str
    meaning: str
    better: Better | None
    decimals: int = 3

    @property
    def direction(self) -> str:
        """Which way is better, in words; empty where neither is."""
        return _WORDS[self.better]


_BOTH_ORDERS = (
    Metric("excess_brier", "Excess Brier score", "mean (answer − true probability)²", "lower", 4),
    Metric("brier", "Brier score", "mean squared error against every single vote", "lower", 4),
    Metric("log_loss", "Log loss", "mean surprise at every single vote, in nats", "lower"),
    Metric("ece", "Calibration error (ECE)", "mean gap between answers and votes, in ten bins", "lower"),
    Metric("ece_noise_floor", "ECE of a perfect judge", "the noise floor: an ECE near it is nothing but chance", None),
    Metric("mse_dense", "MSE to the vote share", "mean (answer − vote share)²", "lower", 4),
    Metric("mse_corrected", "MSE, vote noise removed", "the same less the noise of few votes", "lower", 4),
    Metric("agreement", "Agreement", "share of answers on the side of the majority", "higher"),
    Metric("consistency", "Consistency", "share of pairs with the same winner in both orders", "higher"),
    Metric("symmetry_deviation_abs", "Slot bias, mean |SD|", "how far swapping the responses moves answers", "lower"),
    Metric("symmetry_deviation_mean", "Slot bias, mean SD", "above 0: favours the response shown second", "zero"),
    Metric("sharpness", "Sharpness", "variance of the answers; near 0, all pairs get the same answer", None, 4),
    Metric("parse_rate", "Readable answers", "probability that an answer is a number in [0, 1]", "higher"),
    Metric("distinct_answers", "Distinct answers", "how many different numbers are said", None, 0),
)
_AVERAGED_KEYS = ("excess_brier", "brier", "log_loss", "ece", "mse_dense", "agreement", "sharpness")

METRICS: tuple[Metric, ...] = _BOTH_ORDERS + tuple(
    Metric(m.key + _SUFFIX, m.label, m.meaning, m.better, m.decimals) for m in _BOTH_ORDERS if m.key in _AVERAGED_KEYS
)
"""All metrics shown, in order: of the answers in both orders, then (`…_symmetrized`) of the two orders averaged."""


@dataclass(frozen=True)
class Cell:
    """A value as text, with its 95 % interval as text; both are empty where the metric is absent."""

    value: str = ""
    interval: str = ""

    @property
    def text(self) -> str:
        """Value and interval in one line; a dash where there is none."""
        return f"{self.value} {self.interval}".strip() or "-"


@dataclass(frozen=True)
class Row:
    """A metric before and after training. `change` is `better` or `worse` where the two intervals do not overlap."""

    metric: Metric
    before: Cell
    after: Cell
    change: Literal["better", "worse", ""]


def metric_groups(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, list[Row]]:
    """The rows of the table of metrics by heading; metrics that are in neither mapping have no row.

    Args:
        before: Flat metrics before training, as `judge_metrics` gives them.
        after: The same after training.
    """
    groups: dict[str, list[Row]] = {"Both orders, each answer by itself": [], "Both orders averaged": []}
    single, averaged = groups.values()
    for metric in METRICS:
        if metric.key in before or metric.key in after:
            row = Row(metric, cell(metric, before), cell(metric, after), _change(metric, before, after))
            (averaged if metric.key.endswith(_SUFFIX) else single).append(row)
    return {heading: rows for heading, rows in groups.items() if rows}


def cell(metric: Metric, metrics: Mapping[str, float]) -> Cell:
    """A metric as it is shown; empty where it is not among the metrics."""
    if metric.key not in metrics:
        return Cell()
    form = f"{'+' if metric.better == 'zero' else ''}.{metric.decimals}f"
    interval = _interval(metric, metrics)
    return Cell(f"{metrics[metric.key]:{form}}", f"[{interval[0]:{form}}, {interval[1]:{form}}]" if interval else "")


def _interval(metric: Metric, metrics: Mapping[str, float]) -> tuple[float, float] | None:
    low, high = metrics.get(f"{metric.key}_low"), metrics.get(f"{metric.key}_high")
    return None if low is None or high is None else (low, high)


def _change(metric: Metric, before: Mapping[str, float], after: Mapping[str, float]) -> Literal["better", "worse", ""]:
    intervals = _interval(metric, before), _interval(metric, after)
    if metric.better is None or None in intervals:
        return ""
    (low_before, high_before), (low_after, high_after) = intervals
    if low_before <= high_after and low_after <= high_before:
        return ""
    old, new = before[metric.key], after[metric.key]
    if metric.better == "zero":
        old, new = abs(old), abs(new)
    return "better" if (new > old) == (metric.better == "higher") else "worse"
