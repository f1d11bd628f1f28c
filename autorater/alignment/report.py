"""The files of a finished run: metrics, predictions, report with reliability diagrams, model card."""

import logging
from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from autorater.alignment.evaluation import ItemEvaluation, write_item_predictions
from autorater.evaluation.results import before_and_after, write_metrics
from autorater.report import write_card, write_report_page
from autorater.report.glossary import metric_rows, metrics_of
from autorater.report.plots import before_and_after as panels
from autorater.report.plots import reliability_figure
from autorater.report.rendering import png
from autorater.report.tables import fixed_width

TITLE = "Distribution alignment"
METRICS = metrics_of("items")
logger = logging.getLogger(__name__)


def item_reliability_figure(before: ItemEvaluation, after: ItemEvaluation) -> Figure:
    """Reliability of the probabilities of all labels, before and after training."""
    figure = reliability_figure(panels(before, after))
    for diagram, histogram in zip(figure.axes[::2], figure.axes[1::2], strict=True):
        diagram.set_ylabel("votes for the label (share, 0 to 1)", fontsize=10)
        histogram.set_ylabel("share of\nprobabilities", fontsize=10)
        histogram.set_xlabel("probability of the label, 0 to 1", fontsize=10)
    return figure


def write_item_run(
    folder: str, card: Mapping[str, object], before: ItemEvaluation, after: ItemEvaluation, seconds: float
) -> None:
    """Writes metrics, predictions, report and model card of a judge of items, evaluated on the same items.

    `card` holds `base_model`, `prompt_text`, `labels`, `settings` and `warning` of `write_card`.
    """
    write_metrics(folder, before_and_after(before.metrics, after.metrics, seconds))
    write_item_predictions(folder, before, after)
    rows = metric_rows(METRICS, _with_true_bounds(before.metrics), _with_true_bounds(after.metrics))
    label, effect = rows[0].metric.label, rows[0].change or "no clear difference"
    headline = f"{label}: {rows[0].before.value} → {rows[0].after.value}, {effect}."
    shown = {"headline": headline, "groups": {"Distributions": rows}}
    picture = png(item_reliability_figure(before, after))
    about = {name: card[name] for name in ("settings", "warning")}
    write_report_page(folder, title=TITLE, picture=picture, **about, **shown)
    about_items = {"measured_on": f"{len(after.items):,} held-out items", "simulated": after.truth is not None}
    write_card(folder, method="alignment", **about_items, **card, **shown)
    table = [("", "before", "after"), *((row.metric.label, row.before.text, row.after.text) for row in rows)]
    logger.info(f"\n{fixed_width(table)}\n\nreport: {Path(folder, 'report.html')}")


def _with_true_bounds(metrics: dict[str, float]) -> dict[str, float]:
    """The flat metrics, with `kl_low_true` also as `kl_true_low`, the key of a bound in a report."""
    return metrics | {f"kl_true_{side}": metrics.get(f"kl_{side}_true") for side in ("low", "high")}
