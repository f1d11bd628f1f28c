"""Fills in the templates of pages and model cards. A page is one file without scripts; its figures are embedded.

A response is data and may be hostile. So the content security policy of a page allows no script and no request, the
template escapes every value, and its filters `block` (several lines) and `line` make texts visible and short.
"""

from base64 import b64encode
from io import BytesIO
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from autorater.report import text

TEMPLATES = Path(__file__).parent / "templates"


def render(template: Path | str, **values: object) -> str:
    """Fills in a template; a missing value is an error.

    A `.html.j2` file can extend `base.html.j2`, which requires a `title`, and import macros from `parts.html.j2`. A
    `.md.j2` file is Markdown: there the filters `markdown_line` and `markdown_block` escape.
    """
    template = Path(template)
    environment = Environment(
        loader=FileSystemLoader([TEMPLATES, template.parent]),
        autoescape=not template.name.endswith(".md.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "block": text.visible,
        "line": text.visible_line,
        "markdown_block": text.markdown_block,
        "markdown_line": text.markdown_line,
    }
    return environment.get_template(template.name).render(**values)


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
    """A PNG file as the `src` of an image."""
    return f"data:image/png;base64,{b64encode(png).decode('ascii')}"
