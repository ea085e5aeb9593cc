"""A file of clients' availability and speed, and the race of a round's clients to finish before it closes.

Asking more clients than are wanted (130 % in the paper), and closing the round at a deadline: Bonawitz et al. 2019,
"Towards Federated Learning at Scale: System Design".
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedmpi.cells import number
from fedmpi.flow import Clients, Refused
from fedmpi.job import JobError, regular

Seconds = NDArray[np.float64]

NEEDED = ("client", "start", "end")
COLUMNS = (*NEEDED, "speed", "latency")


class Moment(NamedTuple):
    """A reading of the simulated clock: whole periods, and seconds into this one, so that far turns stay exact."""

    turns: int = 0
    phase: float = 0.0


@dataclass(frozen=True)
class Stays:
    """Unbroken stays `[start, end)` in simulated seconds, at most one of a client at any time, clients ascending.

    `speed` is in examples per second, infinite where the file gives none; `latency` in seconds.  All stays repeat every
    `period` seconds (infinite: never); one across the end of a period ends behind it.
    """

    file: str
    period: float
    clients: Clients
    start: Seconds
    end: Seconds
    speed: Seconds
    latency: Seconds

    def opening(self, moment: Moment) -> tuple[Moment, NDArray[np.intp]]:
        """Return the first moment from this one on with any client there, and the places `(n,)` of the stays there.

        Raises Refused where nobody ever comes again.
        """
        phase = moment.phase
        there = np.flatnonzero((self.start <= phase) & (phase < self.end))
        if len(there):
            return moment, there
        later = self.start[self.start > phase]
        if len(later):
            return self.opening(Moment(moment.turns, float(later.min())))
        if self.period < math.inf:
            return self.opening(Moment(moment.turns + 1, float(self.start.min())))
        raise Refused(f"{self.file}: at {phase} simulated seconds every client has left, and none comes again")

    def later(self, moment: Moment, phase: float) -> Moment:
        """Return the moment at `phase` of the period of `moment`; a phase beyond the end lies in a later period."""
        turns, rest = divmod(phase, self.period)
        return Moment(moment.turns + int(turns), rest)

    def seconds(self, moment: Moment) -> float:
        """Return the simulated seconds since the clock stood at 0."""
        return moment.turns * self.period + moment.phase if moment.turns else moment.phase


def race(finish: Seconds, end: Seconds, size: int, limit: float) -> tuple[NDArray[np.intp], float, int]:
    """Return the places of the clients in time, the second of the round's close, and how many left too early.

    Clients would finish their work at `finish` and leave at `end`, both `(n,)`.  The round closes when `size` have
    finished, or all possible ones, or all have left, and at `limit` in any case.  Places are in the order of finishing
    (ties to the lower place); those counted as left had gone by the close with their work undone.
    """
    able = np.flatnonzero(finish <= end)
    first = able[np.argsort(finish[able], kind="stable")][:size]
    close = min(limit, float(finish[first[-1]] if len(first) else end.max()))
    return first[finish[first] <= close], close, int(np.count_nonzero((end < finish) & (end <= close)))


def read_trace(file: str, ids: Sequence[str], period: float | None) -> Stays:
    """Return the stays in a CSV file with a header line: `client`, `start`, `end`, optionally `speed` and `latency`.

    `ids` are the clients' in index order.  An empty `end` is for ever, or the period's end; an empty `speed` is work in
    no time, an empty `latency` none.  Lines of one client that touch or overlap are one stay, at the speed and latency
    of its first line.  Raises JobError for an unreadable file and Refused, with the line, for an error in it.
    """
    places = {client: place for place, client in enumerate(ids)}
    try:
        regular(file)
        with open(file, newline="", encoding="utf-8-sig") as text:  # spreadsheets begin theirs with a mark
            reader = csv.reader(text, strict=True)
            try:
                header = _header(next(reader, []))
                lines = [_line(header, cells, places, period) for cells in reader if any(map(str.strip, cells))]
            except (ValueError, csv.Error) as error:  # a decoding error is a ValueError too
                raise Refused(f"{file}, line {max(1, reader.line_num)}: {error}") from None
    except OSError as error:
        raise JobError(f"cohort.sampler.file: {file}: cannot be read: {error.strerror}") from None
    if not lines:
        raise Refused(f"{file}: has no line below its header, so no client is ever there")
    clients, *columns = zip(*_joined(lines, period), strict=True)
    numbers = [np.array(column, dtype=np.float64) for column in columns]
    return Stays(file, period or math.inf, np.array(clients, dtype=np.int64), *numbers)


Line = tuple[int, float, float, float, float]  # client, start, end, speed, latency


def _joined(lines: Sequence[Line], period: float | None) -> list[list[float]]:
    """Join lines of one client that touch or overlap to one stay, over the end of a period too."""
    stays: list[list[float]] = []
    for client, start, end, *rest in sorted(lines, key=itemgetter(0, 1)):
        if stays and stays[-1][0] == client and start <= stays[-1][2]:
            stays[-1][2] = max(stays[-1][2], end)
        else:
            stays.append([client, start, end, *rest])
    if period is not None:
        first = {stay[0]: stay for stay in stays if stay[1] == 0}
        for stay in stays:
            if stay[2] == period and stay[0] in first:
                stay[2] = math.inf if stay[1] == 0 else period + first[stay[0]][2]
    return stays


def _header(cells: Sequence[str]) -> list[str]:
    header = [cell.strip() for cell in cells]
    for column in NEEDED:
        if column not in header:
            raise ValueError(
                f"has no column {column!r}; there should be {', '.join(NEEDED)}, and may be speed, latency"
            )
    for place, column in enumerate(header):
        # An unknown column may be a misspelt one, without which work would silently take no time.
        if column not in COLUMNS or column in header[:place]:
            raise ValueError(f"column {column!r} is not one of {', '.join(COLUMNS)}, each at most once")
    return header


def _line(header: Sequence[str], cells: Sequence[str], places: Mapping[str, int], period: float | None) -> Line:
    if len(cells) != len(header):
        raise ValueError(f"has {len(cells)} values for {len(header)} columns")
    row = {column: cell.strip() for column, cell in zip(header, cells, strict=True)}
    if row["client"] not in places:
        raise ValueError(f"client {row['client']!r} is not in the shard set")
    start = _number(row, "start", None)
    end = _number(row, "end", period or math.inf)
    speed = _number(row, "speed", math.inf)
    latency = _number(row, "latency", 0.0)
    if period is not None and not 0 <= start < end <= period:
        raise ValueError(
            f"from {start:g} to {end:g} given; with a period a line should lie within 0 to {period:g} and end after it "
            "starts (a stay over the period's end takes two)"
        )
    if end <= start:
        raise ValueError(f"end {end:g} given; should be after start, {start:g}")
    if speed <= 0:
        raise ValueError(f"speed {speed:g} given; should be above 0")
    if latency < 0:
        raise ValueError(f"latency {latency:g} given; should be 0 or more")
    return places[row["client"]], start, end, speed, latency


def _number(row: Mapping[str, str], column: str, default: float | None) -> float:
    text = row.get(column, "")
    if not text and default is not None:
        return default
    value = number(text)
    if value is None or not math.isfinite(value):
        raise ValueError(f"{column} {text!r} given; should be a number, written as a plain decimal one")
    return value
