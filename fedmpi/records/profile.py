"""A rank's time in spans, kept as a trace that Perfetto opens: rounds, phases, clients, collectives, checkpoints.

The file is the array of Chrome's trace event format, in which times are microseconds.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedmpi.flow import Learned

TRACKS = ("rounds", "phases", "clients", "collectives", "scores", "checkpoints")
LIMIT = 250_000  # spans of a rank, some 30 MB: a long run is profiled as far as they go
MERGED = "trace.json"

Span = tuple[int, str, float, float, dict[str, Any]]


class Profile:
    """The spans of one rank, from `zero` on, a moment that all ranks share; `write` puts them into a file.

    Spans beyond `limit` are dropped, and the file says from when on.
    """

    def __init__(self, rank: int, name: str, zero: float, limit: int = LIMIT) -> None:
        self.rank, self.name, self.zero, self.limit = rank, name, zero, limit
        self.spans: list[Span] = []
        self.dropped: float | None = None  # when the first span was dropped

    def span(self, track: str, name: str, began: float, ended: float, **told: Any) -> None:
        """Note what this rank did from `began` to `ended`, readings of `time.perf_counter`."""
        if len(self.spans) < self.limit:
            self.spans.append((TRACKS.index(track), name, began, ended, told))
        elif self.dropped is None:
            self.dropped = began

    def clients(self, trained: Iterator[Learned], ids: Any, clients: Any) -> Iterator[Learned]:
        """Yield what clients learned, noting the time of each; `ids` names a client, `clients` are the cohort's."""
        began = time.perf_counter()
        for learned in trained:
            ended = time.perf_counter()
            names = [str(ids(int(clients[place]))) for place in learned.places]
            name = f"client {names[0]}" if len(names) == 1 else f"{len(names)} clients"
            self.span("clients", name, began, ended, clients=names)
            yield learned
            began = time.perf_counter()
            self.span("clients", "add", ended, began)

    def write(self, folder: Path) -> None:
        """Write this rank's trace into a folder, as `rank-NUMBER.json`."""
        about = [("process_name", 0, self.name), ("process_sort_index", 0, self.rank)]
        about += [("thread_name", at, track) for at, track in enumerate(TRACKS)]
        events: list[dict[str, Any]] = []
        for kind, at, value in about:
            told = {"sort_index" if kind.endswith("index") else "name": value}
            events.append({"name": kind, "ph": "M", "pid": self.rank, "tid": at, "args": told})
        for at, name, began, ended, told in self.spans:
            times = {"ts": round(1e6 * (began - self.zero), 1), "dur": round(1e6 * (ended - began), 1)}
            events.append({"name": name, "ph": "X", "pid": self.rank, "tid": at, **times, "args": told})
        if self.dropped is not None:
            ts = round(1e6 * (self.dropped - self.zero), 1)
            events.append({"name": FULL, "ph": "i", "s": "p", "pid": self.rank, "tid": 0, "ts": ts})
        folder.mkdir(parents=True, exist_ok=True)
        aside = folder / f".rank-{self.rank}.json.part"
        aside.write_text("[\n" + ",\n".join(map(json.dumps, events)) + "\n]\n", encoding="utf-8")
        os.replace(aside, folder / f"rank-{self.rank}.json")


FULL = "the trace is full: what came later is not in it"


def merge(folder: Path) -> bool:
    """Write the traces of all ranks as one file, `trace.json`; return whether one of them is not whole."""
    files = sorted(folder.glob("rank-*.json"), key=lambda file: int(file.stem.split("-")[1]))
    aside, full = folder / f".{MERGED}.part", False
    with aside.open("w", encoding="utf-8") as trace:
        trace.write("[\n")
        for place, file in enumerate(files):
            body = file.read_text(encoding="utf-8").strip().removeprefix("[").removesuffix("]").strip()
            full |= FULL in body
            trace.write((",\n" if place else "") + body)
        trace.write("\n]\n")
    os.replace(aside, folder / MERGED)
    return full
