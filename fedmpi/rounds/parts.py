"""A rank's share of a run: what every kind of round is made of."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fedmpi import hear
from fedmpi.aggregation import ReducePath
from fedmpi.cohort.deal import deal
from fedmpi.cohort.samplers import Drawn
from fedmpi.evaluation import Scorer, ready
from fedmpi.flat import FlatModel
from fedmpi.flow import Clients, Comm, Layout, Refused, State
from fedmpi.plan.plan import Plan
from fedmpi.records.memory import Memory
from fedmpi.rounds.scribe import Scribe
from fedmpi.rounds.tally import Tally
from fedmpi.tell import Interrupted, note
from fedmpi.training import Sequential
from fedmpi.training.batches import work

BLOCK = 8192  # clients scored between two reductions at the close
WHOLE = (
    "whole numbers that clients' training changes are counts, and are added up over clients",
    "flags that a client's training sets are set for every client from the next round on",
)


class Watch:
    """When a round's phases ended, on this rank, in seconds since it began."""

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.at: dict[str, float] = {}

    def mark(self, phase: str) -> None:
        self.at[phase] = time.perf_counter() - self.began


@dataclass
class Parts:
    """A rank's share of a run; `seat` is its place among the ranks that serve clients, None for one that does not."""

    plan: Plan
    comm: Comm
    flat: FlatModel
    layout: Layout
    state: State
    engine: Sequential
    memory: Memory | None
    path: ReducePath
    scorer: Scorer
    seat: int | None
    seats: int
    scribe: Scribe | None  # at home
    scores: tuple[str, ...]  # of clients on their held-out examples; () where they keep none
    ensemble: nn.Module | None = None  # what is used in place of one model, where there is one

    @property
    def model(self) -> nn.Module:
        """What the run makes."""
        return self.flat.model if self.ensemble is None else self.ensemble

    def due(self) -> bool:
        """The model received in this round is to be scored: it is a round's work, and the job says so."""
        made, every = self.state.round - 1, self.plan.job.evaluation.every
        return made > 0 and every > 0 and made % every == 0

    @property
    def kinds(self) -> tuple[str, ...]:
        """Which models clients score: the one that travels, their own, or both."""
        strategy = self.plan.strategy
        common = strategy.common or self.ensemble is not None
        return (("clients",) if common else ()) + (("personal",) if strategy.personalises else ())

    @property
    def columns(self) -> tuple[str, ...]:
        """What a client's row of scores holds: every score, of each kind of model."""
        return tuple(f"{kind}.{name}" for kind in self.kinds for name in self.scores)

    @property
    def counters(self) -> tuple[str, ...]:
        """What this run's stages count."""
        return tuple(name for stage in self.path.stages for name in stage.counters)

    def draw(self) -> Drawn | None:
        """The cohort of the round under way, the same on every rank.  Collective where candidates are asked first.

        None where nobody ever comes again: the run is over, with the model received.  Refused in the first round.
        """
        sampler, state = self.plan.sampler, self.state
        try:
            drawn = sampler.draw(state.round)
        except Refused as refused:  # every rank finds it
            if state.round == 1:
                self.comm.settle(refused)
            if self.scribe is not None:
                self.scribe.stopped = str(refused)
            state.ended()
            return None
        sampler.sound(drawn, self.plan.shards.clients if sampler.asks else sampler.most)
        if not sampler.asks:
            return drawn
        losses = torch.zeros(len(drawn.clients), dtype=torch.float64)
        for place in self.deal(drawn.clients):
            self.engine.begin()
            losses[place] = self.engine.client(int(drawn.clients[place])).objective()
        self.comm.reduce(losses)
        self.comm.broadcast(losses)
        return sampler.sound(sampler.choose(drawn, losses.numpy()), sampler.most)

    def deal(self, clients: Clients) -> list[int]:
        """The places among `clients` that this rank serves."""
        return [] if self.seat is None else self.hands(clients)[self.seat]

    def hands(self, clients: Clients) -> list[list[int]]:
        """The places among `clients` that each seat serves."""
        if not len(clients):
            return [[] for _ in range(self.seats)]
        if self.memory is not None and not self.memory.travels:
            return [np.flatnonzero(clients % self.seats == seat).tolist() for seat in range(self.seats)]
        return deal(work(self.plan.shards.sizes(clients), self.plan.job.local), self.seats)

    def rank(self, seat: int) -> int:
        """Which rank sits there."""
        return seat if self.seats == self.comm.size else seat + 1

    def score(self, index: int) -> NDArray[np.float64]:
        """A client's scores `(columns,)` on its held-out examples; the received model is in place before and after."""
        x, y = self.plan.shards.heldout(index)
        rows = []
        for kind in self.kinds:
            if kind == "personal" and len(y):
                self.engine.personal(index)
            rows.append(self.scorer.client(self.model if kind == "clients" else self.flat.model, x, y))
        if self.kinds[-1:] == ("personal",):
            self.engine.begin()
        return np.concatenate(rows)

    def ready(self) -> None:
        """Before the first round, where test examples are scored: import what takes seconds and is no part of one."""
        if self.plan.shards.test_examples and (self.plan.strategy.common or self.plan.loop.votes):
            ready(self.plan.task, self.plan.metrics)

    def central(self) -> dict[str, Any]:
        """Home's score of the received model on all held-out examples; {} where that model is none to use."""
        if "clients" not in self.kinds:
            return {}
        self.engine.begin()
        return self.scorer.central(self.model, *self.plan.shards.test())

    def evaluation(self, central: dict[str, Any], rows: NDArray[np.float64]) -> dict[str, Any]:
        """A line's `evaluation`: the central score, and the spread of `(K, columns)` for each kind of model."""
        found = {"test": central}
        if self.scores:
            split = rows.reshape(len(rows), len(self.kinds), len(self.scores))
            found |= {kind: self.scorer.summarise(split[:, place]) for place, kind in enumerate(self.kinds)}
        return {name: part for name, part in found.items() if part}

    def ends(self, scribe: Scribe, clients: Clients, tally: Tally, told: dict[str, Any]) -> bool:
        """At home: the line of the model just scored; whether the run ends with that model."""
        scribe.asked |= tally.asked
        scribe.unfit(tally, lambda place: self.plan.shards.id(int(clients[place])), self._tensor)
        if not scribe.scored(told["evaluation"], told["evaluate"]):
            return False
        self.state.crossing = 0
        self.state.ended(1 if scribe.broken else 0)
        return True

    def heed(self) -> None:
        """At home, between two rounds: where a rank was asked to stop, the next broadcast ends the run for now."""
        scribe, state = self.scribe, self.state
        if scribe is None or state.crossing or scribe.broken or scribe.stopped:
            return
        if scribe.asked or hear.asked():
            state.ended(Interrupted.code)

    @property
    def interrupted(self) -> bool:
        """The run ended because somebody asked, and can go on another time; every rank knows."""
        return self.state.done and self.state.code == Interrupted.code

    def _tensor(self, at: int) -> str:
        """Which tensor the value at a place of the wire belongs to, in words; nothing where it is a sum."""
        size, trained = self.layout.size, self.layout.trained
        name = self.flat.name(at % size) if at < self.layout.up * size else None
        if name is None:
            return ""
        return f" of the {'parameter' if at % size < trained.stop else 'buffer'} {name!r}"

    def count(self, scribe: Scribe, tally: Tally) -> None:
        """At home, with the step: what the model's counts and flags have come to."""
        whole, state = self.flat.whole, self.state
        if not len(state.counts) or state.crossing + 1 < self.plan.strategy.passes:
            return
        before = state.counts.copy()
        state.counts[:] = whole.merged(*tally.changes)
        for names, what in zip(whole.told(before, state.counts), WHOLE, strict=True):
            if new := [name for name in names if name not in scribe.counts]:
                note(f"the model's {', '.join(map(repr, new))}: {what}")
                scribe.counts.update(new)

    def told(self, central: dict[str, Any], tally: Tally, watch: Watch) -> dict[str, Any]:
        """What a round's first crossing says of the model received: its scores, and the seconds that they took."""
        spent = max(float(tally.ranks[:, 1].max()), watch.at["scored"] - watch.at["received"])
        return {"evaluation": self.evaluation(central, tally.client_scores) if self.due() else {}, "evaluate": spent}

    def advance(self, scribe: Scribe, line: dict[str, Any]) -> None:
        """At home: this round is over."""
        scribe.crossed(line)
        self.state.crossing = 0
        self.state.round += 1
        if self.state.round > self.plan.job.rounds:
            self.state.ended()

    def spent(self, tally: Tally, watch: Watch) -> dict[str, Any]:
        """Where a round's time and bytes went: `train` is the slowest rank's, `reduce` what came after it."""
        busy = tally.ranks[:, :2].sum(axis=1)
        serving = busy if self.seats == self.comm.size else busy[1:]
        slowest, at = float(serving.max()), watch.at
        seconds = {
            "broadcast": at["received"],
            "train": float(tally.ranks[:, 0].max()),
            "reduce": max(0.0, min(at["reduced"] - at["arrived"], at["reduced"] - at["received"] - slowest)),
            "step": at["stepped"] - at["reduced"],
            "evaluate": 0.0,  # of this round's model: the next crossing knows
            "total": at["stepped"],
        }
        return {
            "lr": self.plan.job.local.lr * self.plan.schedule(self.state.round, self.plan.job.rounds),
            "seconds": seconds,
            "bytes": {
                "down": self.state.travels.numel() * self.state.travels.itemsize,
                "up": self.path.bytes + tally.vector.numel() * 8,
            },
            "idle": [round(1 - float(part) / slowest, 4) if slowest else 0.0 for part in serving],
            "lost": {"ranks": [], "clients": []},
        }

    def close(self) -> None:
        """Score the final model centrally and on every client's held-out examples; home writes the last line.

        A run that is to go on another time has no final model yet: only what its clients kept reaches the disk.
        """
        comm, shards = self.comm, self.plan.shards
        if self.memory is not None:
            self.memory.sync()
        if self.interrupted:
            return
        self.engine.receive()
        self.engine.begin()
        central = self.central() if comm.is_home else {}
        rows = np.zeros((0, len(self.columns)))
        if self.scores:
            blocks = []
            for start in range(0, shards.clients, BLOCK):
                clients = np.arange(start, min(start + BLOCK, shards.clients))
                block = torch.zeros(len(clients), len(self.columns), dtype=torch.float64)
                for place in self._scorers(clients):
                    block[place] = torch.from_numpy(self.score(int(clients[place])))
                comm.reduce(block)
                if comm.is_home:
                    blocks.append(block.numpy())
            rows = np.concatenate(blocks) if blocks else rows
        if self.scribe is not None:
            self.scribe.close(self.evaluation(central, rows))

    def _scorers(self, clients: Clients) -> list[int]:
        if self.memory is not None and not self.memory.travels:
            return self.deal(clients)
        return [] if self.seat is None else deal(self.plan.shards.heldout_sizes(clients) + 1, self.seats)[self.seat]
