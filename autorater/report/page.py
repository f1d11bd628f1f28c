"""`report.html`, one file that opens offline, and `reliability.png`.

A response is data and may be hostile: the page has no script, its content security policy allows none and no request
to anywhere, every value is escaped by the template, and texts are made visible and short first (`text`).
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jinja2 import Environment, StrictUndefined
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from autorater.report.glossary import metric_groups
from autorater.report.plots import order_swap_figure, reliability_figure
from autorater.report.tables import settings_rows, topic_rows, worst_pairs
from autorater.report.template import PAGE
from autorater.report.text import visible, visible_line
from autorater.report.verdict import verdict

if TYPE_CHECKING:
    from autorater.evaluation import Evaluation

_FOLD = 1_000  # characters of a text that are shown without another click


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
    reliability = _png(reliability_figure(before, after))
    page = (
        _environment()
        .from_string(PAGE)
        .render(
            title=title,
            verdict=verdict(before, after),
            n_pairs=len(after.pairs),
            has_truth=after.truth is not None,
            groups=metric_groups(before.metrics, after.metrics),
            reliability=_data_uri(reliability),
            order_swap=_data_uri(_png(order_swap_figure(before, after))),
            topics=topic_rows(after),
            worst=worst_pairs(before, after),
            settings=settings_rows(settings),
            fold=_FOLD,
        )
    )
    Path(folder, "reliability.png").write_bytes(reliability)
    Path(folder, "report.html").write_text(page, encoding="utf-8")


def _environment() -> Environment:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"block": visible, "line": visible_line}
    return environment


def _png(figure: Figure) -> bytes:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    file = BytesIO()
    # 256 colours and no metadata: a quarter of the bytes, no channel off by more than 9, equal for equal numbers
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    image.quantize(256, Image.Quantize.MAXCOVERAGE).save(file, "png", optimize=True)
    return file.getvalue()


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{b64encode(png).decode('ascii')}"
