"""The axes of every kind of chart: printable names, units of measure, rounds as whole numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Numbers = NDArray[np.float64]
Draw = Callable[["Axes"], None]
Units = Mapping[str, float]  # names and sizes, ascending

TIMES = {"ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
SIZES = {"B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}
DRAWABLE = 1e100  # matplotlib's own margins overflow not far above


def plain(text: object, limit: int = 44) -> str:
    """Return a name as a picture can show it: one line, printable, not much longer than `limit`."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in str(text)).split())
    if len(line) > limit:  # names of runs tend to differ at their ends
        line = f"{line[: limit // 2]}...{line[3 - limit // 2 :]}"
    return f"\u00a0{line}" if line.startswith("_") else line  # matplotlib hides labels with an underscore in front


def unit(values: Iterable[float], units: Units) -> tuple[str, float]:
    """Return the name and size of the largest of `units` within the largest value, at least the first of them."""
    top = max((value for value in values if math.isfinite(value)), default=0.0)
    return [(name, size) for index, (name, size) in enumerate(units.items()) if index == 0 or top >= size][-1]


def whole_rounds(axes: Axes, low: float, high: float) -> None:
    """Set the horizontal axis from `low` to `high`, with ticks at whole rounds."""
    from matplotlib.ticker import MaxNLocator

    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, steps=[1, 2, 5, 10], min_n_ticks=1))


def drawable(values: Numbers | float) -> Numbers:
    """Return the values with NaN in place of those too large for matplotlib."""
    values = np.asarray(values, dtype=np.float64)
    return np.where(np.abs(values) < DRAWABLE, values, np.nan)
