"""Synchronous rounds: one Bcast, local training, one weighted Reduce, the server's step."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedmpi.aggregation import ReducePath
from fedmpi.evaluation import Scorer
from fedmpi.flat import FlatModel
from fedmpi.flow import Clients, Comm, Layout, Passage, State, Unfit
from fedmpi.rounds.assemble import Plan
from fedmpi.rounds.cohort import deal, draw
from fedmpi.rounds.scribe import Scribe, fill
from fedmpi.rounds.tally import Tally
from fedmpi.training import Sequential
from fedmpi.training.batches import steps

BLOCK = 8192  # clients scored between two reductions at the close


@dataclass
class Parts:
    """A rank's share of a run; `seat` is its place among the ranks that serve clients, None for one that does not."""

    plan: Plan
    comm: Comm
    flat: FlatModel
    layout: Layout
    state: State
    engine: Sequential
    path: ReducePath
    scorer: Scorer
    seat: int | None
    seats: int
    scribe: Scribe | None  # at home
    scores: tuple[str, ...]  # of clients on their held-out examples; () where they keep none

    def due(self) -> bool:
        """The model received in this round is to be scored: it is a round's work, and the job says so."""
        made, every = self.state.round - 1, self.plan.job.evaluation.every
        return made > 0 and every > 0 and made % every == 0

    def cohort(self) -> tuple[Clients, list[int]]:
        """The clients of the round under way, and the places among them that this rank serves."""
        job, shards = self.plan.job, self.plan.shards
        cohort = draw(job.seed, self.state.round, shards.clients, self.plan.cohort)
        if self.seat is None:
            return cohort, []
        sizes, local = shards.sizes(cohort), job.local
        if local.steps is not None:  # a step costs a batch, whatever the client holds
            batch = np.minimum(sizes, local.batch or sizes.max())
            costs = batch * steps(1, local.batch, local.epochs, local.steps)
        else:
            costs = sizes * (local.epochs or 1)
        return cohort, deal(costs, self.seats)[self.seat]


def run(parts: Parts) -> None:
    """Rounds until the state says that the run is over, then the final model's scores; the same calls on every rank.

    Home's state must hold the model to begin with.  Afterwards every rank's `flat` holds the final model.
    """
    comm, state, scribe = parts.comm, parts.state, parts.scribe
    if comm.is_home and state.round > parts.plan.job.rounds:
        state.ended()  # a finished run, resumed
    while True:
        watch = Watch()
        comm.broadcast(state.travels)
        if state.done:
            break
        watch.mark("received")
        cohort, mine = parts.cohort()
        passage = Passage(state.round, cohort, parts.layout)
        scores = parts.scores if parts.due() else ()
        tally = Tally(comm.size, len(cohort), counters(parts), scores)
        parts.engine.receive()
        parts.path.begin()
        if scribe is not None:
            scribe.received()
        central = _central(parts) if comm.is_home and parts.due() else {}
        watch.mark("scored")
        busy = _serve(parts, passage, mine, tally)
        tally.rank(comm.me, *busy, parts.path.counters())
        watch.mark("arrived")
        crossed = parts.path.collect(passage, tally.vector)
        watch.mark("reduced")
        if scribe is not None and crossed is not None:
            _turn(parts, scribe, passage, crossed, tally, central, watch)
    _close(parts)


class Watch:
    """When a round's phases ended, on this rank, in seconds since it began."""

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.at: dict[str, float] = {}

    def mark(self, phase: str) -> None:
        self.at[phase] = time.perf_counter() - self.began


def _turn(
    parts: Parts,
    scribe: Scribe,
    passage: Passage,
    crossed: tuple[Tensor, dict[str, float]],
    tally: Tally,
    central: dict[str, Any],
    watch: Watch,
) -> None:
    """Home's turn: the line of the model just scored, then either the end or the next step."""
    state, shards = parts.state, parts.plan.shards
    mean, sums = crossed
    scribe.unfit(tally, lambda place: shards.id(int(passage.clients[place])))
    if scribe.broken is None and not torch.isfinite(mean.sum()):
        scribe.broken = f"round {state.round}: the mean update is not finite; a smaller local.lr may help"
    spent = max(float(tally.ranks[:, 1].max()), watch.at["scored"] - watch.at["received"])
    if scribe.scored(_evaluation(parts, central, tally.client_scores) if parts.due() else {}, spent):
        state.ended(1 if scribe.broken else 0)
        return
    parts.plan.strategy.step(state, mean, sums)
    watch.mark("stepped")
    scribe.crossed(fill({"round": state.round}, tally, sums) | _spent(parts, tally, watch))
    state.round += 1
    if state.round > parts.plan.job.rounds:
        state.ended()


def counters(parts: Parts) -> tuple[str, ...]:
    return tuple(name for stage in parts.path.stages for name in stage.counters)


def _serve(parts: Parts, passage: Passage, mine: list[int], tally: Tally) -> tuple[float, float]:
    """Score and train this rank's clients, and enter their updates; seconds of training and of scoring."""
    trained = scored = 0.0
    for place in mine:
        index = int(passage.clients[place])
        began = time.perf_counter()
        parts.engine.begin()
        if tally.scores:
            tally.score(place, parts.scorer.client(parts.flat.model, *parts.plan.shards.heldout(index)))
        begun = time.perf_counter()
        learned = parts.engine.learn(index, passage.round)
        reason = 0
        try:
            parts.path.add(learned.wire, passage.of(index, learned.examples))
        except Unfit as unfit:
            reason = unfit.reason
        tally.client(place, learned.examples, learned.steps, learned.loss, reason)
        scored += begun - began
        trained += time.perf_counter() - begun
    return trained, scored


def _central(parts: Parts) -> dict[str, Any]:
    """Home's score of the received model on all held-out examples."""
    parts.engine.begin()
    return parts.scorer.central(parts.flat.model, *parts.plan.shards.test())


def _evaluation(parts: Parts, central: dict[str, Any], rows: Any) -> dict[str, Any]:
    """A line's `evaluation`: what there is of the central score and the clients' spread."""
    spread = parts.scorer.summarise(rows) if parts.scores else {}
    return {name: part for name, part in {"test": central, "clients": spread}.items() if part}


def _spent(parts: Parts, tally: Tally, watch: Watch) -> dict[str, Any]:
    """Where a round's time and bytes went: `train` is the slowest rank's, `reduce` what came after it."""
    busy = tally.ranks[:, :2].sum(axis=1)
    serving = busy if parts.seats == parts.comm.size else busy[1:]
    slowest, at = float(serving.max()), watch.at
    seconds = {
        "broadcast": at["received"],
        "train": float(tally.ranks[:, 0].max()),
        "reduce": max(0.0, min(at["reduced"] - at["arrived"], at["reduced"] - at["received"] - slowest)),
        "step": at["stepped"] - at["reduced"],
        "evaluate": 0.0,  # of this round's model: the next crossing knows
        "total": at["stepped"],
    }
    line: dict[str, Any] = {
        "lr": parts.plan.job.local.lr * parts.plan.schedule(parts.state.round, parts.plan.job.rounds),
        "seconds": seconds,
        "bytes": {
            "down": parts.state.travels.numel() * parts.state.travels.itemsize,
            "up": parts.path.bytes + tally.vector.numel() * 8,
        },
        "idle": [round(1 - float(part) / slowest, 4) if slowest else 0.0 for part in serving],
        "lost": {"ranks": [], "clients": []},
    }
    ledgers = {type(stage).__name__.lower(): stage.ledger() for stage in parts.path.stages}
    told = {name: ledger for name, ledger in ledgers.items() if ledger} | tally.counted
    return line | ({"stages": told} if told else {})


def _close(parts: Parts) -> None:
    """Score the final model centrally and on every client's held-out examples; home writes the last line."""
    comm, flat, shards = parts.comm, parts.flat, parts.plan.shards
    parts.engine.receive()
    parts.engine.begin()
    central = parts.scorer.central(flat.model, *shards.test()) if comm.is_home else {}
    rows = np.zeros((0, 0))
    if parts.scores:
        blocks = []
        for start in range(0, shards.clients, BLOCK):
            clients = np.arange(start, min(start + BLOCK, shards.clients))
            block = torch.zeros(len(clients), len(parts.scores), dtype=torch.float64)
            if parts.seat is not None:
                for place in deal(shards.heldout_sizes(clients) + 1, parts.seats)[parts.seat]:
                    block[place] = torch.from_numpy(
                        parts.scorer.client(flat.model, *shards.heldout(int(clients[place])))
                    )
            comm.reduce(block)
            if comm.is_home:
                blocks.append(block.numpy())
        rows = np.concatenate(blocks) if blocks else rows
    if parts.scribe is not None:
        parts.scribe.close(_evaluation(parts, central, rows))


def starting(plan: Plan, flat: FlatModel, state: State) -> None:
    """Home's first model, as the job's seed or pretrained file made it."""
    state.planes[0].copy_(flat.values[flat.shared])
    state.round = 1
