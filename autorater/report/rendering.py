"""Pages in one harmless file: templates filled in, figures as PNG inside the page.

A response is data and may be hostile: a page has no script, its content security policy allows none and no request to
anywhere, every value is escaped by the template, and texts are made visible and short first (`text`).
"""

from __future__ import annotations

from base64 import b64encode
from io import BytesIO

import numpy as np
from jinja2 import DictLoader, Environment, StrictUndefined
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from autorater.report.template import BASE, PARTS
from autorater.report.text import visible, visible_line

FOLD = 1_000  # characters of a text that are shown without another click


def render(template: str, **values: object) -> str:
    """A page from a template that extends "base", and may import from "parts"; `title` is among the values."""
    return _environment().from_string(template).render(**values)


def png(figure: Figure) -> bytes:
    """The figure as a small PNG file."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    file = BytesIO()
    # 256 colours and no metadata: a quarter of the bytes, no channel off by more than 9, equal for equal numbers
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    image.quantize(256, Image.Quantize.MAXCOVERAGE).save(file, "png", optimize=True)
    return file.getvalue()


def data_uri(png: bytes) -> str:
    """A PNG file as the `src` of an image in a page that loads nothing."""
    return f"data:image/png;base64,{b64encode(png).decode('ascii')}"


def _environment() -> Environment:
    environment = Environment(
        loader=DictLoader({"base": BASE, "parts": PARTS}),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"block": visible, "line": visible_line}
    return environment
