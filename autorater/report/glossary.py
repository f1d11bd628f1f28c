"""The metrics that reports show, from `glossary.toml`: label, meaning, better direction; the rows of a table."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

GLOSSARY = tomllib.loads(Path(__file__).with_name("glossary.toml").read_text(encoding="utf-8"))
_AVERAGED = "_symmetrized"
_DIRECTIONS = {"lower": "lower is better", "higher": "higher is better", "zero": "nearer to 0 is better", None: ""}


@dataclass(frozen=True)
class FormattedValue:
    """A value as text, with its 95 % interval as text; both are empty where the metric is absent."""

    value: str = ""
    interval: str = ""

    @property
    def text(self) -> str:
        """Value and interval in one line; a dash where there is none."""
        return f"{self.value} {self.interval}".strip() or "-"


@dataclass(frozen=True)
class Metric:
    """How a metric is shown: `better` is its better direction, None where neither is."""

    key: str
    label: str
    meaning: str = ""
    better: Literal["lower", "higher", "zero"] | None = None
    decimals: int = 3

    @property
    def direction(self) -> str:
        """Which direction is better, as text; empty where neither is."""
        return _DIRECTIONS[self.better]

    def format(self, metrics: Mapping[str, float | None]) -> FormattedValue:
        """Its value and 95 % interval among flat metrics, as text; empty where it is absent."""
        if metrics.get(self.key) is None:
            return FormattedValue()
        form = f"{'+' if self.better == 'zero' else ''}.{self.decimals}f"
        interval = self.interval(metrics)
        value = f"{metrics[self.key]:{form}}"
        return FormattedValue(value, f"[{interval[0]:{form}}, {interval[1]:{form}}]" if interval else "")

    def interval(self, metrics: Mapping[str, float | None]) -> tuple[float, float] | None:
        """Its 95 % interval, if there is one."""
        interval = metrics.get(f"{self.key}_low"), metrics.get(f"{self.key}_high")
        return None if None in interval else interval


def metrics_of(report: str) -> tuple[Metric, ...]:
    """The metrics of a section of `[metrics]` in `glossary.toml`, in its order."""
    return tuple(Metric(key, **entry) for key, entry in GLOSSARY["metrics"][report].items())


_EACH_ORDER = metrics_of("judge")
_AVERAGED_KEYS = ("excess_brier", "brier", "log_loss", "ece", "mse_dense", "agreement", "sharpness")

METRICS: tuple[Metric, ...] = _EACH_ORDER + tuple(
    replace(metric, key=metric.key + _AVERAGED) for metric in _EACH_ORDER if metric.key in _AVERAGED_KEYS
)
"""All metrics shown, in order: of the answers in each order, then (`…_symmetrized`) of the mean over both orders."""


@dataclass(frozen=True)
class Row:
    """A metric before and after training. `change` is `better` or `worse` where the two intervals do not overlap."""

    metric: Metric
    before: FormattedValue
    after: FormattedValue
    change: Literal["better", "worse", ""]


def metric_groups(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, list[Row]]:
    """The rows of the table of metrics, by heading; a metric that is in neither of the flat metrics has no row."""
    rows = metric_rows(METRICS, before, after)
    single = [row for row in rows if not row.metric.key.endswith(_AVERAGED)]
    groups = {"Each order separately": single, "Both orders averaged": rows[len(single) :]}
    return {heading: rows for heading, rows in groups.items() if rows}


def metric_rows(metrics: Sequence[Metric], before: Mapping[str, float], after: Mapping[str, float]) -> list[Row]:
    """One row for each of the metrics that is in `before` or `after`, in the order of `metrics`."""
    return [
        Row(metric, metric.format(before), metric.format(after), _change(metric, before, after))
        for metric in metrics
        if metric.key in before or metric.key in after
    ]


def _change(metric: Metric, before: Mapping[str, float], after: Mapping[str, float]) -> Literal["better", "worse", ""]:
    intervals = metric.interval(before), metric.interval(after)
    if metric.better is None or None in intervals:
        return ""
    if metric.better == "zero":
        intervals = [_sizes(*interval) for interval in intervals]
    (low_before, high_before), (low_after, high_after) = intervals
    if low_before <= high_after and low_after <= high_before:
        return ""
    return "better" if (low_after > high_before) == (metric.better == "higher") else "worse"


def _sizes(low: float, high: float) -> tuple[float, float]:
    """The interval of |x| for x in an interval."""
    sizes = sorted((abs(low), abs(high)))
    return (0.0 if low <= 0 <= high else sizes[0], sizes[1])
