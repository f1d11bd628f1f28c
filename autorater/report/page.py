"""`report.html`, one file that opens offline, and `reliability.png`.

How a page is kept harmless and in one file is in `rendering`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from autorater.report.glossary import metric_groups
from autorater.report.headline import verdict
from autorater.report.plots import order_swap_figure, reliability_figure
from autorater.report.rendering import FOLD, data_uri, png, render
from autorater.report.tables import settings_rows, topic_rows, worst_pairs
from autorater.report.template import PAGE

if TYPE_CHECKING:
    from autorater.evaluation.judge import Evaluation


def write_report(
    folder: str | Path, before: Evaluation, after: Evaluation, *, title: str, settings: Mapping[str, object]
) -> None:
    """Writes `reliability.png` and `report.html`.

    Args:
        folder: An existing folder.
        before: The judge before training.
        after: The judge after training, on the same pairs.
        title: Heading of the page.
        settings: What the run was told, by name; values are shown as text, those of tokens and keys are hidden.

    Raises:
        ValueError: If before and after are not of the same pairs.
    """
    reliability = png(reliability_figure(before, after))
    page = render(
        PAGE,
        title=title,
        verdict=verdict(before, after),
        n_pairs=len(after.pairs),
        has_truth=after.truth is not None,
        groups=metric_groups(before.metrics, after.metrics),
        reliability=data_uri(reliability),
        order_swap=data_uri(png(order_swap_figure(before, after))),
        topics=topic_rows(after),
        worst=worst_pairs(before, after),
        settings=settings_rows(settings),
        fold=FOLD,
    )
    Path(folder, "reliability.png").write_bytes(reliability)
    Path(folder, "report.html").write_text(page, encoding="utf-8")
