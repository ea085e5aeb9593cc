"""Ensemble rounds: each client trains a model of its own, and what is used is their soft vote.

Breiman 1996, "Bagging Predictors": the clients' examples are the bags, or with `bootstrap` a sample of them drawn with
replacement.  Models travel only to be scored together and kept.
"""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedmpi.aggregation.paths.reduce import first
from fedmpi.evaluation.vote import Ensemble
from fedmpi.flat import FlatModel
from fedmpi.flow import Examples
from fedmpi.job import JobError
from fedmpi.plan.plan import Loop, Plan
from fedmpi.rounds.loops.cyclic import once_each
from fedmpi.rounds.parts import Parts, Watch
from fedmpi.rounds.scribe import fill
from fedmpi.rounds.tally import Tally
from fedmpi.training.sequential import key


def loop(bootstrap: bool = False) -> Loop:
    """Clients' own models and their soft vote; `bootstrap`: each learns from a sample of its examples (bagging)."""
    return Loop(partial(run, bootstrap=bootstrap), check, votes=True)


def check(plan: Plan) -> None:
    """Refuse what needs a sum or a server."""
    job = plan.job
    if job.strategy.name != "local":
        raise JobError(f'loop: ensemble has each client train by itself, not {job.strategy.name}; use strategy "local"')
    if job.aggregation.stages:
        raise JobError("loop: ensemble sums nothing, so aggregation.stages have no place; leave them out")
    once_each(plan)


@dataclass
class Bags:
    """A shard set whose clients learn from as many examples, drawn with replacement once and for all."""

    shards: Any
    seed: int

    def train(self, client: int) -> tuple[Tensor, Tensor]:
        x, y = self.shards.train(client)
        random = np.random.default_rng(key(self.seed, 0, client, use=3))
        chosen = torch.from_numpy(random.integers(0, max(1, len(y)), len(y)))
        return x[chosen], y[chosen]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.shards, name)


def run(parts: Parts, bootstrap: bool) -> None:
    """Rounds until the state says that the run is over; afterwards every rank holds the ensemble."""
    comm, state, scribe, shards = parts.comm, parts.state, parts.scribe, parts.plan.shards
    if bootstrap:
        bags: Examples = Bags(shards, parts.plan.job.seed)
        parts.engine.shards = bags
    members = [
        FlatModel(copy.deepcopy(parts.plan.model), dtype=parts.plan.dtype, device=parts.flat.device)
        for _ in range(shards.clients)
    ]
    parts.ensemble = Ensemble([member.model for member in members], parts.plan.task)
    if comm.is_home and state.round > parts.plan.job.rounds:
        state.ended()
    while True:
        watch = Watch()
        parts.heed()
        comm.broadcast(state.travels)
        if state.done:
            break
        watch.mark("received")
        parts.engine.receive()
        drawn = parts.draw()
        if drawn is None:
            break
        tally = Tally(comm.size, len(drawn.clients), (), parts.columns if parts.due() else (), len(state.counts))
        central = {}
        if parts.due():
            gather(parts, members, parts.ensemble)
        if scribe is not None:
            scribe.received()
            central = parts.central() if parts.due() else {}
        watch.mark("scored")
        trained = scored = 0.0
        for place in parts.deal(drawn.clients):
            index, began = int(drawn.clients[place]), time.perf_counter()
            parts.engine.begin()
            if tally.scores:
                tally.score(place, parts.score(index))
            begun = time.perf_counter()
            learned = parts.engine.learn(index)
            values = parts.flat.values
            wrong = ~torch.isfinite(values) & (values != parts.engine.received)  # a mask of -inf is what it was
            reason = 1 if wrong.any() else 0
            tally.client(place, learned.examples, learned.steps, learned.loss, reason, first(wrong))
            tally.counted_by(learned.counts)
            scored += begun - began
            trained += time.perf_counter() - begun
        assert parts.memory is not None
        parts.memory.sync(state.round)
        tally.rank(comm.me, trained, scored, {})
        watch.mark("arrived")
        comm.reduce(tally.vector)
        watch.mark("reduced")
        if scribe is not None and not parts.ends(scribe, drawn.clients, tally, parts.told(central, tally, watch)):
            parts.count(scribe, tally)
            watch.mark("stepped")
            line = fill({"round": state.round}, tally, {"weight": float(len(drawn.clients))})
            line |= parts.spent(tally, watch) | ({"cohort": drawn.told} if drawn.told else {})
            line["bytes"]["up"] = tally.vector.numel() * 8
            parts.advance(scribe, line)
    if not parts.interrupted:
        gather(parts, members, parts.ensemble)
    parts.close()
    parts.ensemble.voting()


def gather(parts: Parts, members: list[FlatModel], ensemble: Ensemble) -> None:
    """Every client's model, as of the last round, on every rank; who never trained has no vote.  Collective."""
    engine, comm = parts.engine, parts.comm
    size = parts.layout.size
    sent = torch.zeros(size + 1, dtype=parts.flat.dtype)
    hands = parts.hands(np.arange(len(members)))
    for seat, hand in enumerate(hands):
        for index in hand:
            if seat == parts.seat:
                client = engine.client(index)
                sent[:size].copy_(client.memory["own"])
                sent[size] = 0 if client.fresh else 1
            comm.broadcast(sent, parts.rank(seat))
            members[index].values.copy_(sent[:size])
            members[index].whole.received.copy_(parts.flat.whole.received)
            members[index].restore()
            ensemble.votes[index] = bool(sent[size])
