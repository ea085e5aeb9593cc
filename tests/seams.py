"""Small stages, a path and an engine of one's own, each of which really uses its seam."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedmpi.aggregation import Stage
from fedmpi.flow import Comm, Learned, Passage, Pending, Places, Unfit
from fedmpi.training import Sequential


class TopK(Stage):
    """The largest `share` of an update; each client keeps the rest for its next one (error feedback)."""

    memory = {"rest": "planes"}
    counters = ("dropped",)

    def __init__(self, share: float = 0.25) -> None:
        self.share, self.dropped = share, 0

    def encode(self, wire: Tensor, passage: Passage) -> Tensor:
        planes, rest = passage.layout.planes(wire).flatten(1), passage.memory["rest"]
        planes.add_(rest)
        least = planes.abs().topk(max(1, int(self.share * planes.shape[1]))).values[:, -1:]
        sent = planes.abs() >= least
        rest.copy_(planes.masked_fill(sent, 0.0))
        self.dropped += int((~sent).sum())
        planes.masked_fill_(~sent, 0.0)
        return wire

    def count(self) -> tuple[int, ...]:
        dropped, self.dropped = self.dropped, 0
        return (dropped,)


class Small(Stage):
    """The refusal of an update with a value above 100, wherever it stands among others."""

    def encode(self, wire: Tensor, passage: Passage) -> Tensor:
        wrong = passage.layout.planes(wire).flatten(1).abs() > 100
        if wrong.any():
            raise Unfit(2, int(wrong.int().flatten().argmax()))
        return wire


class Noted(Stage):
    """Each client's norm on the tail, whose mean home tells of."""

    notes = {"norm": "uniform"}
    mean = 0.0

    def encode(self, wire: Tensor, passage: Passage) -> Tensor:
        passage.layout.scalar(wire, "norm").copy_(passage.norm(wire))
        return wire

    def decode(self, wire: Tensor, passage: Passage) -> Tensor:
        self.mean = float(passage.layout.scalar(wire, "norm"))
        return wire

    def ledger(self) -> dict[str, Any]:
        return {"norm": self.mean}


class Fixed(Stage):
    """A total that is known beforehand, in place of the observed one."""

    totals = {"uniform": 8.0, "examples": 4.0}


class Poured(Stage):
    """Masks on integers that cancel over the ranks, poured into the buffer while nobody has come yet."""

    acts_on = "rank"
    place = "integer"
    calls: list[str]

    def join(self, comm: Comm, launch: int) -> None:
        self.me, self.ranks, self.launch = comm.alive.index(comm.me), comm.size, launch

    def begin(self, wire: Tensor, passage: Passage) -> Pending:
        assert not wire.any()
        self.calls = ["begun"]
        return Poured.Pour(self, wire, passage)

    class Pour:
        def __init__(self, stage: Poured, wire: Tensor, passage: Passage) -> None:
            self.stage, self.buffer, self.passage = stage, wire, passage

        def wait(self) -> None:
            """Add this rank's mask, and take off the next one's: the sum over the ring is 0, modulo 2^64."""
            stage = self.stage
            stage.calls.append("poured")
            for sign, rank in ((1, stage.me), (-1, (stage.me + 1) % stage.ranks)):
                seed = 1000 * self.passage.round + 10 * self.passage.launch + rank
                generator = torch.Generator().manual_seed(seed)
                shape, dtype = self.buffer.shape, self.buffer.dtype
                mask = torch.randint(-(2**30), 2**30, shape, generator=generator, dtype=dtype)
                self.buffer.add_(mask, alpha=sign)


class Doubled(Poured):
    """The same, and the sum that comes is doubled: what was poured must stay as it is."""

    def encode(self, wire: Tensor, passage: Passage) -> Tensor:
        return wire.mul_(2)

    def decode(self, wire: Tensor, passage: Passage) -> Tensor:
        return wire.div_(2, rounding_mode="floor")


class Grid(Stage):
    """A rank's or a site's planes in 16 bits, on a grid that all ranks agree on."""

    acts_on = "domain"
    place = "weighed"

    def wire(self, size: int, dtype: torch.dtype) -> tuple[int, torch.dtype]:
        self.dtype = dtype
        return size, torch.int16

    def join(self, comm: Comm, launch: int) -> None:
        self.ranks = comm.size

    def agree(self, wire: Tensor, passage: Passage) -> Tensor:
        return wire.abs().max().reshape(1)

    def _step(self, passage: Passage) -> float:
        assert passage.agreed is not None
        return max(float(passage.agreed[0]), 1e-30) * self.ranks / 32000

    def encode(self, wire: Tensor, passage: Passage) -> Tensor:
        return wire.double().div_(self._step(passage)).round_().to(torch.int16)

    def decode(self, wire: Tensor, passage: Passage) -> Tensor:
        return wire.double().mul_(self._step(passage)).to(self.dtype)


class Opened(Stage):
    """A sum that the ranks open together: each adds its number to the sum in sending, and tells it afterwards."""

    acts_on = "rank"
    place = "integer"

    def join(self, comm: Comm, launch: int) -> None:
        self.comm = comm

    def encode(self, wire: Tensor, passage: Passage) -> Tensor:
        return wire.add_(7 * self.comm.me + 1)

    def open(self, wire: Tensor | None, passage: Passage) -> None:
        told = torch.tensor([7 * self.comm.me + 1])
        self.comm.reduce(told)
        if wire is not None:
            wire.sub_(int(told))


class Halved(Stage):
    """A change to the sum of all, at home alone."""

    acts_on = "home"
    place = "weighed"

    def decode(self, wire: Tensor, passage: Passage) -> Tensor:
        passage.layout.planes(wire).div_(2)
        return wire


class Counted(Stage):
    """A stage that counts its crossings on each rank, from launch to launch, and says what each costs."""

    acts_on = "rank"
    place = "integer"

    def __init__(self) -> None:
        self.seen, self.loaded = torch.zeros(1, dtype=torch.int64), 0

    def encode(self, wire: Tensor, passage: Passage) -> Tensor:
        self.seen += 1
        return wire

    def state(self) -> dict[str, Tensor]:
        return {"seen": self.seen}

    def load(self, states: Sequence[Mapping[str, Tensor]]) -> None:
        self.loaded = len(states)
        for state in states:
            self.seen += state["seen"]

    def charge(self, passage: Passage) -> dict[str, Any]:
        return {"epsilon": 0.5, "clients": len(passage.clients)}


class Beside:
    """A path of one's own: rows side by side on every rank, from which home takes the weighted mean."""

    rides = "rows"

    def __init__(self, comm: Comm, stages: Sequence[Stage], layout: Any, scale: float = 1.0) -> None:
        self.comm, self.layout, self.scale = comm, layout, scale
        self.stages = [stage for stage in stages if stage.acts_on == "client"]

    @property
    def bytes(self) -> int:
        return int(self.layout.width * self.layout.dtype.itemsize)

    def begin(self, passage: Passage) -> None:
        self.rows = torch.zeros(len(passage.clients), self.layout.width, dtype=self.layout.dtype)
        self.came = passage.clients

    def add(self, rows: Tensor, passage: Passage) -> NDArray[np.int64]:
        faults = np.zeros((len(rows), 2), np.int64)
        for row, client in enumerate(passage.clients.tolist()):
            one = slice(row, row + 1)
            wire = rows[one]
            if not torch.isfinite(wire).all():
                faults[row] = 1, 0
                continue
            for stage in self.stages:
                wire = stage.encode(wire, passage.of(one))
            self.rows[int(np.searchsorted(self.came, client))] = wire[0]
        return faults

    def collect(self, passage: Passage, tally: Tensor) -> tuple[Tensor, dict[str, float]] | None:
        self.comm.reduce(self.rows, tally)
        if not self.comm.is_home:
            return None
        wire = self.rows.double().sum(0).to(self.layout.dtype)
        for stage in reversed(self.stages):
            wire = stage.decode(wire, passage)
        sums = dict(zip(self.layout.scalars, self.layout.tail(wire).tolist(), strict=True))
        return self.layout.planes(wire).mul_(self.scale), sums


class Pairs(Sequential):
    """An engine of one's own: clients are handed on as rows of two."""

    def train(self, places: Places, passage: Passage) -> Iterator[Learned]:
        for start in range(0, len(places), 2):
            both = []
            for learned in super().train(places[start : start + 2], passage):
                keepsakes = None if learned.keepsakes is None else learned.keepsakes.clone()
                both.append((learned, learned.rows.clone(), learned.counts.clone(), keepsakes,
                             {name: part.clone() for name, part in learned.memory.items()}))  # fmt: skip
            keepsakes = None if both[0][3] is None else torch.cat([one[3] for one in both if one[3] is not None])
            kept = 0 if keepsakes is None else keepsakes.shape[1]
            memory, at = {}, kept - sum(part.shape[1] for part in both[0][4].values())
            for name, part in both[0][4].items():  # the stages' memory lies at the end of what a client keeps
                memory[name] = keepsakes[:, at : at + part.shape[1]] if keepsakes is not None else part
                at += part.shape[1]
            yield Learned(
                places[start : start + 2],
                torch.cat([one[1] for one in both]),
                np.concatenate([one[0].examples for one in both]),
                np.concatenate([one[0].steps for one in both]),
                np.concatenate([one[0].loss for one in both]),
                torch.cat([one[2] for one in both]),
                memory,
                keepsakes,
            )


class Half:
    """No engine: it cannot train."""

    def start(self) -> None: ...
