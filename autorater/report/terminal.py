"""The table printed at the end of a run: metric, before, after, in at most 79 columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autorater.report.glossary import metric_groups

if TYPE_CHECKING:
    from autorater.evaluation.judge import Evaluation


def summary_table(before: Evaluation, after: Evaluation) -> str:
    """The metrics before and after training with their 95 % intervals, as fixed-width text without a final newline."""
    lines: list[tuple[str, str, str] | str] = [("", "before", "after")]
    for heading, rows in metric_groups(before.metrics, after.metrics).items():
        lines += [heading, *((f"  {r.metric.label}", r.before.text, r.after.text) for r in rows)]
    widths = [max(len(line[column]) for line in lines if isinstance(line, tuple)) for column in range(3)]
    return "\n".join(
        line if isinstance(line, str) else "  ".join(map(str.ljust, line, widths)).rstrip() for line in lines
    )
