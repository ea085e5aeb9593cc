"""Figures for people: tables on a terminal, rows of Markdown for `scaling.md`, pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

from fedmpi.bench.machine import sentence
from fedmpi.report.axes import SIZES, TIMES, unit
from fedmpi.report.bars import bar_chart
from fedmpi.report.curves import Curve, line_chart
from fedmpi.report.pictures import Picture, picture

WORTH = 4.0  # MiB of a model, from which on memory is told in its sizes

HEAD = """# Clients a second, by machine

Appended by `fedmpi bench --append`: whole rounds of a job, with journal and checkpoints, without scores.  Efficiency is
clients a second of a rank that serves clients, over that of the first row.  The floor is plain eager PyTorch with one
Allreduce a round.
"""


def tables(found: dict[str, Any]) -> Group:
    """Return the figures as tables for a terminal."""
    blocks: list[Any] = [Text(sentence(found["machine"]))]
    about = f"{found['job']}: {found['parameters']:,} parameters, {found['clients']:,} clients a round"
    blocks += [Text(f"{about}; {found['ranks']} ranks on {found['hosts']} host{'s' * (found['hosts'] > 1)}"), Text()]
    engines = _table("engine", "a round", "/ floor", "of turns", "clients/s", "start to first")
    floor = found["floor"]
    engines.add_row(
        f"floor ({floor['ranks']} rank{'s' * (floor['ranks'] > 1)})", seconds(floor["seconds"]), "1", "", "", ""
    )
    for name, row in found["engines"].items():
        low, high = row["ratios"]
        engines.add_row(
            name, seconds(row["seconds"]), f"{row['ratio']:.2f}", f"{low:.2f}-{high:.2f}",
            three(row["clients_a_second"]), seconds(row["first"]),
        )  # fmt: skip
    rows = _table("ranks", "serving", "a round", "clients/s", "bytes", "efficiency")
    for row in found["scaling"]:
        rows.add_row(
            str(row["ranks"]), str(row["serving"]), seconds(row["seconds"]), three(row["clients_a_second"]),
            f"{size(row['bytes_a_second'])}/s", f"{row['efficiency']:.0%}",
        )  # fmt: skip
    collectives = _table("collectives", "broadcast", "", "sum", "")
    for row in found["collectives"]:
        rates = [f"{size(row['bytes'] / row[kind])}/s" for kind in ("broadcast", "reduce")]
        collectives.add_row(size(row["bytes"]), seconds(row["broadcast"]), rates[0], seconds(row["reduce"]), rates[1])
    model = found["memory"]["model"]
    memory = _table("beyond imports", "MiB", *(["models"] if model > WORTH else []))
    for rank, above in enumerate(found["memory"]["above"]):
        memory.add_row(f"rank {rank}", f"{above:,.0f}", *([f"{above / model:.1f}"] if model > WORTH else []))
    for table in (engines, rows, collectives, memory):
        blocks += [table, Text()]
    return Group(*blocks[:-1])


def _table(*heads: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for place, head in enumerate(heads):
        table.add_column(head, justify="right" if place else "left", header_style="bold", no_wrap=True)
    return table


def three(value: float) -> str:
    """Return a number with at least three figures, and no more than are before its point."""
    return f"{value:,.0f}" if value >= 99.95 else f"{value:.3g}"


def seconds(value: float) -> str:
    """Return a time with three figures in its own unit."""
    if value < 0.9995e-3:
        return f"{three(1e6 * value)} us"
    name, length = unit([value * 1.0005], TIMES)
    return f"{three(value / length)} {name}"


def size(value: float) -> str:
    """Return bytes with three figures in their own unit."""
    name, length = unit([value * 1.0005], SIZES)
    return f"{three(value / length)} {name}"


def markdown(found: dict[str, Any]) -> str:
    """Return the rows of one machine for `scaling.md`."""
    hosts = f"{found['hosts']} host{'s' * (found['hosts'] > 1)}"
    ratios = ", ".join(f"{name} {row['ratio']:.2f}" for name, row in found["engines"].items())
    lines = [
        f"## {found['job']}: {found['parameters']:,} parameters, {found['clients']:,} clients a round; {hosts}",
        "",
        sentence(found["machine"]) + ".",
        f"A round over the floor on {found['ranks']} ranks: {ratios}.",
        "",
        "| ranks | serve clients | s a round | clients a second | bytes a second | efficiency |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {row['ranks']} | {row['serving']} | {row['seconds']:.4g} | {three(row['clients_a_second'])} "
        f"| {row['bytes_a_second']:.3g} | {row['efficiency']:.2f} |"
        for row in found["scaling"]
    ]
    return "\n".join(lines) + "\n"


def append(found: dict[str, Any], path: Path) -> None:
    """Append the rows of this machine to a file of Markdown, which is begun where it is not there."""
    text = path.read_text(encoding="utf-8") if path.exists() else HEAD
    aside = path.with_name(f".{path.name}.part")
    aside.write_text(text.rstrip("\n") + "\n\n" + markdown(found), encoding="utf-8")
    aside.replace(path)


def pictures(found: dict[str, Any]) -> Sequence[Picture]:
    """Return the pictures of the figures."""
    names = ["floor", *found["engines"]]
    times = np.array([found["floor"]["seconds"], *(row["seconds"] for row in found["engines"].values())])
    bars = bar_chart(names, {"a round": times}, x="a round", units=TIMES)
    drawn = [picture("bench-engines", f"{found['job']}: a round by engine", "", bars, 1.1 + 0.34 * len(names))]
    if len(found["scaling"]) > 1:
        serving, rates = (
            np.array([row[name] for row in found["scaling"]], dtype=np.float64)
            for name in ("serving", "clients_a_second")
        )
        ideal = Curve(x=serving, y=serving * rates[0] / serving[0], colour=6, dash="--", label="as the first row")
        curve = Curve(x=serving, y=rates, colour=0, label="measured")
        show = line_chart([curve, ideal], x="ranks that serve clients", y="clients a second")
        drawn.append(picture("bench-scaling", f"{found['job']}: clients a second", "", show))
    return drawn
