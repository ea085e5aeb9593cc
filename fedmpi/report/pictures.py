"""A drawing as a picture: a PNG file, and an SVG in its page's colours."""

from __future__ import annotations

import html
import io
import math
import re
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedmpi.flow import Refused
from fedmpi.report.axes import Draw, plain
from fedmpi.report.colours import COLOURS, STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Picture:
    """A drawing, not yet on disk: its file's name, title and caption, its PNG and the SVG element for a page."""

    name: str
    title: str
    caption: str
    png: bytes
    svg: str


def picture(name: str, title: str, caption: str, draw: Draw, height: float = 3.1) -> Picture:
    """Return the picture of a drawing on axes of 5.6 by `height` inches; a long legend makes it taller."""
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError:
        raise Refused('the pictures need matplotlib: pip install "fedmpi[report]"') from None
    with rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # a name in a script the font lacks
        figure = Figure(layout="constrained")
        axes = figure.add_subplot()
        axes.set_title(plain(title, 48))
        draw(axes)
        figure.set_size_inches(5.6, height + 0.19 * max(_legend(figure, axes) - 1, 0))
        png, svg = io.BytesIO(), io.StringIO()
        figure.savefig(png, format="png", dpi=160, facecolor="white")
        figure.savefig(svg, format="svg", transparent=True, metadata={"Date": None})
    return Picture(name, title, caption, png.getvalue(), inline(svg.getvalue(), title))


def inline(svg: str, title: str) -> str:
    """Return matplotlib's SVG as an element of a page: colours are the page's variables, nothing points outside."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # every picture numbers its parts alike; only definitions are referred to
    view = re.search(r'viewBox="[^"]*"', svg)
    head = f'<svg {view.group() if view else ""} role="img" aria-label="{html.escape(title)}">'
    svg = head + svg[svg.index(">") + 1 :].strip()
    for variable, (light, _) in COLOURS.items():
        svg = svg.replace(light, f"var({variable})")
    return svg


def _legend(figure: Figure, axes: Axes) -> int:
    """Name the curves below the axes, where there are several; return the number of rows."""
    handles, labels = axes.get_legend_handles_labels()
    if len(labels) < 2:
        return 0
    widths = [len(label) + 7 for label in labels]
    columns = len(labels) if sum(widths) <= 92 else max(1, 92 // max(widths))
    figure.legend(handles, labels, ncols=columns, loc="outside lower left")
    return math.ceil(len(labels) / columns)
