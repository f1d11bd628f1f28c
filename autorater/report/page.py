"""Writes `report.html`, a single file that opens offline, and `reliability.png` of a training run."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from autorater.data.atomic import write_bytes, write_text
from autorater.evaluation.judge import Evaluation
from autorater.report.breakdown import topic_rows, worst_pairs
from autorater.report.glossary import Row, metric_groups
from autorater.report.headline import headline, measured_on
from autorater.report.plots import before_and_after, order_swap_figure, reliability_figure
from autorater.report.rendering import TEMPLATES, data_uri, png, render
from autorater.report.tables import settings_rows


def write_report(
    folder: str | Path,
    before: Evaluation,
    after: Evaluation,
    *,
    title: str,
    settings: Mapping[str, object],
    warning: str = "",
    pointwise: bool = False,
) -> None:
    """Writes the report of a judge of pairs.

    Args:
        folder: An existing folder.
        before, after: The judge before and after training, on the same pairs.
        title: Heading of the page.
        settings: Settings of the run by name; values of tokens, keys and passwords are hidden.
        warning: What to know before the measurements are used, or nothing.
        pointwise: Whether the judge scores single responses.

    Raises:
        ValueError: If before and after are not of the same pairs.
    """
    panels = before_and_after(before, after)
    write_report_page(
        folder,
        title=title,
        headline=headline(before, after),
        groups=metric_groups(before.metrics, after.metrics),
        settings=settings,
        warning=warning,
        picture=png(reliability_figure(panels)),
        template="training.html.j2",
        measured_on=measured_on(len(after.pairs), pointwise),
        has_truth=after.truth is not None,
        order_swap=data_uri(png(order_swap_figure(panels))),
        topics=topic_rows(after),
        worst=worst_pairs(before, after),
    )


def write_report_page(
    folder: str | Path,
    *,
    title: str,
    headline: str,
    groups: Mapping[str, Sequence[Row]],
    settings: Mapping[str, object],
    warning: str = "",
    picture: bytes | None = None,
    template: str = "summary.html.j2",
    **details: object,
) -> None:
    """Writes the report of any run: a headline, metrics before and after, a picture, settings.

    Args:
        folder, title, settings, warning: As in `write_report`.
        headline: The result of the run in a sentence.
        groups: Rows of the table of metrics by heading, as from `metric_groups` or `metric_rows`.
        picture: A PNG file with reliability diagrams, see `autorater.report.rendering.png`.
        template: Its name in the folder `templates`.
        details: Further values of the template.
    """
    page = render(
        TEMPLATES / template,
        title=title,
        headline=headline,
        groups=groups,
        settings=settings_rows(settings),
        warning=warning,
        picture=data_uri(picture) if picture else "",
        **details,
    )
    if picture:
        write_bytes(Path(folder, "reliability.png"), picture)
    write_text(Path(folder, "report.html"), page)
