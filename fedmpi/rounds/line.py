"""A line of the journal: a crossing's updates in numbers, its seconds and bytes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmpi.rounds.tally import Tally

Line = dict[str, Any]


class Watch:
    """The ends of a crossing's phases on this rank, in seconds since it began."""

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.at: dict[str, float] = {}

    def mark(self, phase: str) -> None:
        """Note the end of a phase."""
        self.at[phase] = time.perf_counter() - self.began


def counters(tally: Tally, sums: Mapping[str, float]) -> Line:
    """Return the entries of a line about a crossing's updates; none of single clients where the tally hides them."""
    clients = {"clients": len(tally.rows) - len(tally.unfit), "weight": sums["weight"]}
    if tally.hides:
        return {**clients, "train_loss": None}
    return {**clients, "examples": tally.examples, "steps": tally.steps, "train_loss": tally.loss}


def seconds(watch: Watch, serving: float, training: float) -> dict[str, float]:
    """Return a line's `seconds`; `reduce` is the time of the reduction after the slowest rank's arrival.

    `serving` is the longest time any rank served clients, `training` the longest time any rank trained them.
    """
    at = watch.at
    return {
        "broadcast": at["received"],
        "train": training,
        "reduce": max(0.0, min(at["reduced"] - at["arrived"], at["reduced"] - at["received"] - serving)),
        "step": at["stepped"] - at["reduced"],
        "evaluate": 0.0,  # of this round's model: filled in by the next round
        "total": at["stepped"],
    }


def idle(serving: NDArray[np.float64]) -> list[float]:
    """Return a line's `idle`: each serving rank's wait as a share of the slowest one's seconds, `serving (seats,)`."""
    slowest = float(serving.max())
    return [round(1 - float(busy) / slowest, 4) if slowest else 0.0 for busy in serving]


def add(line: Line, later: Line) -> Line:
    """Return a round's later line with the seconds and bytes of its earlier crossings added."""
    for name in ("seconds", "bytes") if line else ():
        later[name] = {part: value + line[name][part] for part, value in later[name].items()}
    return later
