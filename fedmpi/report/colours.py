"""The colours of pictures and of their page, and matplotlib's settings: alike in every picture."""

from __future__ import annotations

from typing import Any

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
