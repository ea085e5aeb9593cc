"""Bars: parts of a whole round by round or run by run, and pairs of scores."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fedmpi.report.axes import Draw, Numbers, Units, drawable, plain, unit, whole_rounds
from fedmpi.report.colours import INK, NOTE, PALETTE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

EDGES = (0.8, 1.0)  # where two columns of figures end, in axes that are 1 wide


def stack_chart(rounds: Numbers, layers: Mapping[str, Numbers], *, y: str, units: Units) -> Draw:
    """Return the drawing of a whole's parts stacked on one another, a column per round, or per several if many.

    `layers` hold one value per round, by part; NaN and negative values count as 0.  Columns far above all others are
    cut off.
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
        whole_rounds(axes, edges[0], edges[-1])

    return draw


def bar_chart(names: Sequence[str], layers: Mapping[str, Numbers], *, x: str, units: Units) -> Draw:
    """Return the drawing of a bar per name, stacked from `layers` with a value per name; NaN and negatives are 0."""

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


def pair_chart(
    names: Sequence[str], scores: Mapping[str, tuple[Numbers, Numbers]], words: tuple[str, str], *, x: str
) -> Draw:
    """Return the drawing of each name's bars, one per kind of score, with a line from its end to a second value.

    `scores` hold both values `(names,)` by kind, NaN where a name has none; `words` name the two values.
    """

    def draw(axes: Axes) -> None:
        from matplotlib.ticker import MaxNLocator

        known = {kind: (drawable(bar), drawable(end)) for kind, (bar, end) in scores.items()}
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


def _amounts(values: Numbers) -> Numbers:
    """Return the values as amounts: 0 in place of NaN, of negative values and of those too large to draw."""
    return np.maximum(np.nan_to_num(drawable(values)), 0.0)
