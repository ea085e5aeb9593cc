"""Pictures of numbers: curves, stacks and bars, each as a PNG file and as an SVG that follows its page's colours."""

from __future__ import annotations

import html
import io
import math
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedmpi.flow import Refused

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Numbers = NDArray[np.float64]
Draw = Callable[["Axes"], None]
Units = Mapping[str, float]  # names and sizes, ascending

# After Okabe and Ito, so that people with any kind of colour vision tell them apart: on white, and for a dark page.
PALETTE = (
    ("#0072b2", "#4da6dd"),
    ("#d55e00", "#f2864f"),
    ("#009e73", "#34c49b"),
    ("#aa4499", "#d986c9"),
    ("#e69f00", "#f2b93b"),
    ("#56b4e9", "#8fcdf2"),
    ("#7d8590", "#a3abb5"),
    ("#332288", "#9d92f2"),
    ("#999933", "#c4c45e"),
    ("#7a4a21", "#c99b6c"),
)
INK = {"--ink": ("#1c2430", "#e8ebef"), "--soft": ("#5c6670", "#a0a9b3"), "--line": ("#dde2e7", "#343b44")}
COLOURS = {**{f"--c{index}": pair for index, pair in enumerate(PALETTE)}, **INK}
MANY = 40  # points, above which a curve has no markers
FEW = 20  # points, up to which all of an axis is shown
EDGES = (0.8, 1.0)  # where two columns of figures end, in axes that are 1 wide
ANY = (-math.inf, math.inf)  # bounds of what may have any value
DRAWABLE = 1e100  # matplotlib's own margins overflow not far above
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "font.sans-serif": ["DejaVu Sans"],
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    **dict.fromkeys(["axes.spines.top", "axes.spines.right", "axes.spines.left", "ytick.left"], False),
    **dict.fromkeys(["axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"], INK["--soft"][0]),
    **dict.fromkeys(["axes.titlecolor", "text.color"], INK["--ink"][0]),
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": INK["--line"][0],
    "grid.linewidth": 0.6,
    "text.parse_math": False,  # names are shown as they are written
    "legend.frameon": False,
    "legend.fontsize": 8,
    "legend.handlelength": 1.9,
    "legend.columnspacing": 1.4,
    "svg.fonttype": "none",  # the page's own font, and text that can be selected
    "svg.hashsalt": "fedmpi",
}
NOTE: dict[str, Any] = {"loc": "right", "fontsize": 8, "fontweight": "normal", "color": INK["--soft"][0]}


@dataclass(frozen=True)
class Picture:
    """A drawing, not yet on disk: its file's name, what it shows, its PNG and the SVG element for a page."""

    name: str
    title: str
    caption: str
    png: bytes
    svg: str


@dataclass(frozen=True)
class Curve:
    """A line: `y` (n,) over `x` (n,), NaN where there is a gap, with a band `low` to `high` (n,) where given.

    `dash` is one of matplotlib's line styles, "" for points that are not joined; without a label, no legend has it.
    """

    label: str
    x: Numbers
    y: Numbers
    colour: int = 0
    dash: str = "-"
    low: Numbers | float = math.nan
    high: Numbers | float = math.nan


def picture(name: str, title: str, caption: str, draw: Draw, height: float = 3.1) -> Picture:
    """What `draw` puts on one pair of axes, 5.6 by `height` inches; a legend of several rows makes it taller."""
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
    """Matplotlib's SVG file as an element of a page: colours are the page's variables, nothing points outside."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # every picture numbers its parts alike; only definitions are referred to
    view = re.search(r'viewBox="[^"]*"', svg)
    head = f'<svg {view.group() if view else ""} role="img" aria-label="{html.escape(title)}">'
    svg = head + svg[svg.index(">") + 1 :].strip()
    for variable, (light, _) in COLOURS.items():
        svg = svg.replace(light, f"var({variable})")
    return svg


def plain(text: object, limit: int = 44) -> str:
    """A name as a picture can show it: one line, printable, not too long."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in str(text)).split())
    if len(line) > limit:  # names of runs tend to differ at their ends
        line = f"{line[: limit // 2]}...{line[3 - limit // 2 :]}"
    return f"\u00a0{line}" if line.startswith("_") else line  # matplotlib hides what starts with an underscore


def unit(values: Iterable[float], units: Units) -> tuple[str, float]:
    """The largest of `units`, ascending, that the largest value reaches, and its size."""
    top = max((value for value in values if math.isfinite(value)), default=0.0)
    return [(name, size) for index, (name, size) in enumerate(units.items()) if index == 0 or top >= size][-1]


TIMES = {"ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
SIZES = {"B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}


def lines(
    curves: Sequence[Curve], *, x: str, y: str, x_units: Units | None = None, bounds: tuple[float, float] = ANY
) -> Draw:
    """One curve or more, over rounds or over what `x_units` measure.

    `bounds` are what no value of `y` can pass: bands are cut there, only what is positive without bound may be drawn
    in logarithms, and where there is a best value the axis leaves out how far below it a run began.
    """

    def draw(axes: Axes) -> None:
        every = np.concatenate([_drawable(curve.y) for curve in curves])
        finite = every[np.isfinite(every)]
        log = bounds == (0.0, math.inf) and bool(finite.size and 1 / DRAWABLE < finite.min() < finite.max() / 100)
        name, size = unit((float(value) for curve in curves for value in curve.x), x_units) if x_units else ("", 1.0)
        points = max((len(curve.x) for curve in curves), default=0)
        wide = 1.7 if points <= 300 else 1.0
        for place, curve in enumerate(curves):
            at, values = curve.x / size, _drawable(curve.y)
            low, high = (np.clip(_drawable(edge), *bounds) for edge in (curve.low, curve.high))
            colour = PALETTE[curve.colour % len(PALETTE)][0]
            looks: dict[str, Any] = {"color": colour, "label": plain(curve.label) or "_", "ls": curve.dash}
            looks["lw"] = 0.75 * wide if curve.dash == ":" else wide
            if not curve.dash:
                at = at + 0.14 * (place - (len(curves) - 1) / 2)  # side by side
                axes.vlines(at, low, high, color=colour, alpha=0.5, linewidth=2.5)
            elif len(at) == 1 and points > 1:  # a baseline scored once: a level to compare with
                axes.axhline(values[0], **looks)
                continue
            else:
                axes.fill_between(at, low, high, color=colour, alpha=0.16, linewidth=0)
            marked = points <= MANY and curve.dash in ("-", "")
            axes.plot(at, values, marker="o" if marked else "", markersize=3 if curve.dash else 4.5, **looks)
            alone = _alone(values)
            axes.plot(at[alone], values[alone], ".", color=colour, markersize=4)
        if log:
            _logarithmic(axes, math.log10(finite.max() / finite.min()))
        elif not curves[0].dash:
            axes.set_ylim(bottom=0)
        elif math.isfinite(bounds[1]) and points > FEW:
            _without_beginnings(axes, curves)
        axes.set_xlabel(f"{x} ({name})" if name else x)
        axes.set_ylabel(plain(y))
        if not x_units:
            low_x, high_x = min(curve.x.min() for curve in curves), max(curve.x.max() for curve in curves)
            room = min(0.02 * (high_x - low_x), 0.5) if curves[0].dash and low_x < high_x else 0.5
            _whole_rounds(axes, low_x - room, high_x + room)

    return draw


def stack(rounds: Numbers, layers: Mapping[str, Numbers], *, y: str, units: Units) -> Draw:
    """Parts of a whole, one or more on one another, a column per round (or per some rounds, where there are many).

    `layers` hold one value per round; what is no amount counts as nothing; rounds that dwarf all others are cut off.
    """

    def draw(axes: Axes) -> None:
        chunks = np.array_split(np.arange(len(rounds)), min(len(rounds), 160))
        edges = np.array([rounds[chunk[0]] - 0.5 for chunk in chunks] + [rounds[-1] + 0.5])
        known = {layer: _amounts(values) for layer, values in layers.items()}
        columns = {layer: np.array([values[chunk].mean() for chunk in chunks]) for layer, values in known.items()}
        tops = np.sum([*columns.values()], axis=0)
        usual = np.percentile(tops, 85)
        most = 1.6 * usual if 0 < 3 * usual < tops.max() else 1.05 * tops.max()
        name, size = unit([most], units)
        base = np.zeros(len(chunks))
        for index, (layer, values) in enumerate(columns.items()):
            top = base + values / size
            colour = PALETTE[index % len(PALETTE)][0]
            axes.stairs(top, edges, baseline=base, fill=True, color=colour, label=plain(layer))
            base = top
        axes.set_ylim(0, most / size or 1)
        if most < tops.max():
            longest, long = unit([tops.max()], units)
            axes.set_title(f"cut off: up to {tops.max() / long:.3g} {longest}", **NOTE)
        every = len(rounds) / len(chunks)
        axes.set_xlabel("round" if every == 1 else f"round (a column is the mean of about {every:.0f})")
        axes.set_ylabel(f"{y} ({name})")
        _whole_rounds(axes, edges[0], edges[-1])

    return draw


def bars(names: Sequence[str], layers: Mapping[str, Numbers], *, x: str, units: Units) -> Draw:
    """A bar per name made of `layers`, each with one value per name; what is no amount counts as nothing."""

    def draw(axes: Axes) -> None:
        known = {layer: _amounts(values) for layer, values in layers.items()}
        unit_name, size = unit(np.sum([*known.values()], axis=0), units)
        places, left = np.arange(len(names)), np.zeros(len(names))
        for index, (layer, values) in enumerate(known.items()):
            axes.barh(places, values / size, 0.62, left, color=PALETTE[index % len(PALETTE)][0], label=plain(layer))
            left = left + values / size
        axes.set_yticks(places, [plain(name, 30) for name in names], color=INK["--ink"][0])
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.grid(axis="x", visible=True)
        axes.set_xlabel(f"{x} ({unit_name})")

    return draw


def paired(
    names: Sequence[str], scores: Mapping[str, tuple[Numbers, Numbers]], words: tuple[str, str], *, x: str
) -> Draw:
    """By name a bar for each kind of score that it has, with a line from there to another value of that kind.

    `scores` hold both `(names,)` by kind, NaN where a name has none; `words` say what the two values are.
    """

    def draw(axes: Axes) -> None:
        from matplotlib.ticker import MaxNLocator

        known = {kind: (_drawable(bar), _drawable(end)) for kind, (bar, end) in scores.items()}
        has = np.array([np.isfinite(bar) for bar, _ in known.values()])
        above = np.cumsum(has, axis=0) - has  # bars of the same name
        starts = np.cumsum(has.sum(axis=0) + 0.7) - has.sum(axis=0)
        aside: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "va": "center", "ha": "right", "fontsize": 8}
        for index, (kind, (bar, end)) in enumerate(known.items()):
            here = has[index]
            at, bar, end = (starts + above[index])[here], bar[here], end[here]
            axes.barh(at, bar, 0.84, color=PALETTE[index][0], label=plain(kind))
            axes.hlines(at, bar, end, color=INK["--ink"][0], linewidth=1.2)
            axes.plot(end, at, "o", color=INK["--ink"][0], markersize=3.2)
            for column, values in zip(EDGES, (bar, end), strict=True):
                for place, value in zip(at, values, strict=True):
                    axes.text(column, place, f"{value:#.3g}" if math.isfinite(value) else "-", **aside)
        for column, word in zip(EDGES, words, strict=True):
            axes.text(column, 0.0, word, color=INK["--soft"][0], **aside)
        every = np.concatenate([[0.0], *(values[np.isfinite(values)] for pair in known.values() for values in pair)])
        low, high = float(every.min()), float(every.max()) * 1.02 or 1.0
        axes.set_xticks([tick for tick in MaxNLocator(6).tick_values(low, high) if low <= tick <= high])
        axes.set_xlim(low, low + (high - low) / (EDGES[0] - 0.11))
        axes.spines["bottom"].set_bounds(low, high)
        axes.set_ylim(starts[-1] + has[:, -1].sum(), -0.4)
        axes.set_yticks(starts + (has.sum(axis=0) - 1) / 2, [plain(name, 30) for name in names], color=INK["--ink"][0])
        axes.grid(axis="y", visible=False)
        axes.grid(axis="x", visible=True)
        axes.set_xlabel(plain(x))

    return draw


def _legend(figure: Figure, axes: Axes) -> int:
    """Name the lines below the axes, where there are several; the number of rows that takes."""
    handles, labels = axes.get_legend_handles_labels()
    if len(labels) < 2:
        return 0
    widths = [len(label) + 7 for label in labels]
    columns = len(labels) if sum(widths) <= 92 else max(1, 92 // max(widths))
    figure.legend(handles, labels, ncols=columns, loc="outside lower left")
    return math.ceil(len(labels) / columns)


def _whole_rounds(axes: Axes, low: float, high: float) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, steps=[1, 2, 5, 10], min_n_ticks=1))


def _without_beginnings(axes: Axes, curves: Sequence[Curve]) -> None:
    """Show the scores after the first sixth, where those before would take much of the height."""
    x = np.concatenate([curve.x for curve in curves])
    y = np.concatenate([np.fmin(_drawable(curve.y), _drawable(curve.low)) for curve in curves])
    late = y[np.isfinite(y) & (x >= x.min() + (x.max() - x.min()) / 6)]
    bottom, top = axes.get_ylim()
    if late.size and late.min() > bottom + (top - bottom) / 4:
        axes.set_ylim(late.min() - 0.05 * (top - late.min()), top)
        axes.set_title(f"cut off: down to {min(np.nanmin(_drawable(curve.y)) for curve in curves):.2g}", **NOTE)


def _logarithmic(axes: Axes, decades: float) -> None:
    from matplotlib.ticker import LogLocator

    subs = (1.0, 2.0, 5.0) if decades < 1.7 else (1.0, 3.0) if decades < 3.5 else (1.0,)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=subs, numticks=8))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()


def _drawable(values: Numbers | float) -> Numbers:
    values = np.asarray(values, dtype=np.float64)
    return np.where(np.abs(values) < DRAWABLE, values, np.nan)


def _amounts(values: Numbers) -> Numbers:
    return np.maximum(np.nan_to_num(_drawable(values)), 0.0)


def _alone(values: Numbers) -> NDArray[np.bool_]:
    """Which points have a gap on both sides: a line does not show them."""
    gap = ~np.isfinite(values)
    before, after = np.append(True, gap[:-1]), np.append(gap[1:], True)
    return np.asarray(~gap & before & after)
