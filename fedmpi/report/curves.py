"""Curves over rounds, time or bytes, with bands and baselines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedmpi.report.axes import DRAWABLE, Draw, Numbers, Units, drawable, plain, unit, whole_rounds
from fedmpi.report.colours import NOTE, PALETTE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MANY = 40  # points, above which a curve has no markers
FEW = 20  # points, up to which all of an axis is shown
ANY = (-math.inf, math.inf)  # bounds of a metric without bounds


@dataclass(frozen=True)
class Curve:
    """Values `y` (n,) over `x` (n,), NaN where there is a gap, with a band `low` to `high` (n,) where given.

    `dash` is one of matplotlib's line styles, "" for points without lines; a curve without a label is in no legend.
    """

    label: str
    x: Numbers
    y: Numbers
    colour: int = 0
    dash: str = "-"
    low: Numbers | float = math.nan
    high: Numbers | float = math.nan


def line_chart(
    curves: Sequence[Curve], *, x: str, y: str, x_units: Units | None = None, bounds: tuple[float, float] = ANY
) -> Draw:
    """Return the drawing of one curve or more, over rounds, or over a quantity measured in `x_units`.

    `bounds` are the lowest and the highest possible `y`.  Bands are cut there; from 0 without an upper bound, values
    far apart are drawn on a logarithmic axis; under a finite upper bound the axis leaves out low scores at the start.
    """

    def draw(axes: Axes) -> None:
        every = np.concatenate([drawable(curve.y) for curve in curves])
        finite = every[np.isfinite(every)]
        log = bounds == (0.0, math.inf) and bool(finite.size and 1 / DRAWABLE < finite.min() < finite.max() / 100)
        name, size = unit((float(value) for curve in curves for value in curve.x), x_units) if x_units else ("", 1.0)
        points = max((len(curve.x) for curve in curves), default=0)
        wide = 1.7 if points <= 300 else 1.0
        for place, curve in enumerate(curves):
            at, values = curve.x / size, drawable(curve.y)
            low, high = (np.clip(drawable(edge), *bounds) for edge in (curve.low, curve.high))
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
            whole_rounds(axes, low_x - room, high_x + room)

    return draw


def _without_beginnings(axes: Axes, curves: Sequence[Curve]) -> None:
    """Cut the axis below the scores after the first sixth, where earlier ones would take much of the height."""
    x = np.concatenate([curve.x for curve in curves])
    y = np.concatenate([np.fmin(drawable(curve.y), drawable(curve.low)) for curve in curves])
    late = y[np.isfinite(y) & (x >= x.min() + (x.max() - x.min()) / 6)]
    bottom, top = axes.get_ylim()
    if late.size and late.min() > bottom + (top - bottom) / 4:
        axes.set_ylim(late.min() - 0.05 * (top - late.min()), top)
        axes.set_title(f"cut off: down to {min(np.nanmin(drawable(curve.y)) for curve in curves):.2g}", **NOTE)


def _logarithmic(axes: Axes, decades: float) -> None:
    """Make the vertical axis logarithmic, with more ticks where it spans fewer `decades`."""
    from matplotlib.ticker import LogLocator

    subs = (1.0, 2.0, 5.0) if decades < 1.7 else (1.0, 3.0) if decades < 3.5 else (1.0,)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=subs, numticks=8))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()


def _alone(values: Numbers) -> NDArray[np.bool_]:
    """Return True for each point with a gap on both sides, which a line does not show."""
    gap = ~np.isfinite(values)
    before, after = np.append(True, gap[:-1]), np.append(gap[1:], True)
    return np.asarray(~gap & before & after)
