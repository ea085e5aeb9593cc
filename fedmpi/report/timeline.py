"""The ranks' time line of a round, from the traces of a profiled run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fedmpi.flow import Refused
from fedmpi.records.profile import TRACKS
from fedmpi.report.axes import TIMES, Draw, unit
from fedmpi.report.colours import INK, PALETTE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Where a rank's tracks begin: home's scores are where others have clients.
LANES = {"phases": 0.0, "clients": 0.25, "scores": 0.25, "collectives": 0.42, "checkpoints": 0.59}
HEIGHTS = {"phases": 0.24, "clients": 0.16, "scores": 0.16, "collectives": 0.16, "checkpoints": 0.16}
MOST = 32  # ranks in a picture: the first of them
COLOURS = {
    "broadcast": 5, "prepare": 4, "train": 0, "reduce": 1, "step": 2,
    "client": 0, "add": 7, "score": 3, "wait": 6, "checkpoint": 9,
}  # fmt: skip


@dataclass(frozen=True)
class Spans:
    """What ranks did in one round: `bars` are rank, track, name, begin and seconds, from the round's begin."""

    round: int
    seconds: float
    ranks: list[int]
    bars: list[tuple[int, str, str, float, float]]


def middle_round(folder: Path) -> Spans | None:
    """Return what ranks did in the round of median length on the first of them; None where a run has no traces.

    The first round, which begins with all that is done once, does not count where there are others.  Raises Refused for
    a trace that cannot be read.
    """
    files = sorted(folder.glob("rank-*.json"), key=lambda file: (len(file.name), file.name))[:MOST]
    if not files:
        return None
    traces = {}
    for file in files:
        try:
            traces[int(file.stem.split("-")[1])] = [_event(event) for event in json.loads(file.read_bytes())]
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            raise Refused(f"{file}: is not a rank's trace: {error}; `fedmpi train --profile` writes them") from None
    events = {rank: [event for event in trace if event is not None] for rank, trace in traces.items()}
    first = next(iter(events))
    rounds = [event for event in events[first] if event[0] == "rounds"]
    rounds = rounds[1:] or rounds
    if not rounds:
        return None
    middle = sorted(rounds, key=lambda event: event[3])[len(rounds) // 2]
    begin, long = middle[2], middle[3]
    bars = [
        (rank, track, name, at - begin, seconds)
        for rank, trace in events.items()
        for track, name, at, seconds, _ in trace
        if track in LANES and at < begin + long and at + seconds > begin
    ]
    return Spans(int(middle[4]["round"]), long, list(events), bars)


def _event(event: dict[str, Any]) -> tuple[str, str, float, float, dict[str, Any]] | None:
    """Return a span's track, name, begin, seconds and what it tells; None for what is no span."""
    if event["ph"] != "X":
        return None
    return TRACKS[event["tid"]], str(event["name"]), event["ts"] / 1e6, event["dur"] / 1e6, event["args"]


def lane_chart(spans: Spans) -> Draw:
    """Return the drawing of a round: a lane for each rank, with its phases above, then clients, waits, checkpoints."""

    def draw(axes: Axes) -> None:
        name, size = unit([spans.seconds], TIMES)
        lanes = {rank: place for place, rank in enumerate(spans.ranks)}
        for kind, colour in COLOURS.items():
            some = [bar for bar in spans.bars if kind_of(bar[1], bar[2]) == kind]
            if not some:
                continue
            begins = np.array([max(bar[3], 0.0) for bar in some])
            ends = np.array([min(bar[3] + bar[4], spans.seconds) for bar in some])
            tops = np.array([lanes[bar[0]] + LANES[bar[1]] + HEIGHTS[bar[1]] / 2 for bar in some])
            heights = np.array([HEIGHTS[bar[1]] for bar in some])
            gap = 0.4 if kind == "client" else 0.0
            label = {"client": None, "add": "add to the sum"}.get(kind, kind)
            axes.barh(
                tops, (ends - begins) / size, heights, begins / size,
                color=PALETTE[colour][0], edgecolor="white", linewidth=gap, label=label,
            )  # fmt: skip
        axes.set_yticks(
            [place + 0.38 for place in lanes.values()],
            [f"rank {rank}" for rank in lanes],
            color=INK["--ink"][0],
        )
        axes.set_ylim(len(lanes) - 0.12, -0.12)
        axes.set_xlim(0, spans.seconds / size)
        axes.grid(axis="y", visible=False)
        axes.grid(axis="x", visible=True)
        axes.set_xlabel(f"time since the round began ({name})")

    return draw


def kind_of(track: str, name: str) -> str | None:
    """Return the kind of a span by its track and name, as the legend calls it; None for one not drawn."""
    if track in ("phases", "scores"):
        return name
    if track == "clients":
        return name if name == "add" else "client"
    if track == "checkpoints":
        return "checkpoint"
    return name if name == "wait" else None


def height(ranks: Sequence[int]) -> float:
    """Return the inches of a picture of so many ranks."""
    return 1.2 + 0.55 * len(ranks)
