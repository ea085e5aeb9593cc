"""Cyclic rounds: the model goes from client to client along a ring, and each trains it before it hands it on.

Chang, Balachandar, Lam, Yi, Brown, Beers, Rosen, Rubin, Kalpathy-Cramer 2018, "Distributed Deep Learning Networks among
Institutions for Medical Imaging": cyclical weight transfer.  There is no sum, and so no stage, weight or server step.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any, Literal

import numpy as np
import torch

from fedmpi.aggregation.paths.reduce import first
from fedmpi.cohort.samplers import Drawn
from fedmpi.flow import entropy
from fedmpi.job import JobError, nearest
from fedmpi.plan.plan import Loop, Plan
from fedmpi.rounds.parts import Parts, Watch
from fedmpi.rounds.scribe import fill
from fedmpi.rounds.tally import Tally
from fedmpi.strategies import STRATEGIES

FITS = ("fedavg", "fedsgd", "fedprox", "feddecorr", "fine-tuning", "per-fedavg")  # a local rule is all there is to them


def loop(order: Literal["fixed", "random"] = "fixed") -> Loop:
    """The model is handed from client to client; the ring's `order` is that of the shard set, or new in each round."""
    return Loop(partial(run, shuffled=order == "random"), check)


def check(plan: Plan) -> None:
    """Refuse what needs a sum or a server."""
    job, strategy = plan.job, plan.strategy
    plain = strategy.passes == strategy.down == len(strategy.up) == 1 and not (strategy.memory or strategy.sums)
    if not plain or (job.strategy.name in STRATEGIES and job.strategy.name not in FITS):
        raise JobError(
            f"loop: cyclic takes a local rule alone, not {job.strategy.name}; there are {', '.join(FITS)}"
            f"{nearest(job.strategy.name, FITS)}"
        )
    if job.aggregation.stages:
        raise JobError("loop: cyclic hands the model on as it is, so aggregation.stages have no place; leave them out")
    server = job.server
    if (server.optimizer.name, server.lr, server.schedule.name) != ("sgd", 1, "constant") or any(
        server.optimizer.options.values()
    ):
        raise JobError("loop: cyclic has no server step; leave server.optimizer, server.lr and server.schedule out")
    once_each(plan)


def once_each(plan: Plan) -> None:
    """Refuse samplers that draw a client twice, where that has no meaning."""
    if plan.sampler.repeats:
        raise JobError(
            f"loop: {plan.job.loop.name} takes a client once a round, and cohort.sampler "
            f"{plan.job.cohort.sampler.name!r} may draw it twice; use another, or replacement = false"
        )


def run(parts: Parts, shuffled: bool) -> None:
    """Rounds until the state says that the run is over; each leg ends in a broadcast from the rank that trained."""
    comm, state, scribe = parts.comm, parts.state, parts.scribe
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
        if scribe is not None:
            scribe.received()
            central = parts.central() if parts.due() else {}
        watch.mark("scored")
        hands = parts.hands(drawn.clients)
        scored = _score(parts, drawn, hands, tally)
        received = state.travels.clone() if comm.is_home else None
        trained = _ring(parts, drawn, hands, tally, shuffled)
        tally.rank(comm.me, trained, scored, {})
        watch.mark("arrived")
        comm.reduce(tally.vector)
        watch.mark("reduced")
        if scribe is not None and received is not None:
            made = state.travels.clone()
            state.travels.copy_(received)  # until the model that was scored is told of, it is the run's
            if not parts.ends(scribe, drawn.clients, tally, parts.told(central, tally, watch)):
                state.travels.copy_(made)
                watch.mark("stepped")
                parts.advance(scribe, _line(parts, drawn, tally, watch))
    parts.close()


def _score(parts: Parts, drawn: Drawn, hands: list[list[int]], tally: Tally) -> float:
    began = time.perf_counter()
    if tally.scores and parts.seat is not None:
        for place in hands[parts.seat]:
            parts.engine.begin()
            tally.score(place, parts.score(int(drawn.clients[place])))
    return time.perf_counter() - began


def _ring(parts: Parts, drawn: Drawn, hands: list[list[int]], tally: Tally, shuffled: bool) -> float:
    """Once round: every rank's state holds the model as it is handed on; seconds of this rank's training."""
    state, spent = parts.state, 0.0
    model = state.planes[0]
    seats = {place: seat for seat, hand in enumerate(hands) for place in hand}
    ring = np.arange(len(drawn.clients))
    if shuffled:
        ring = np.random.default_rng(
            np.random.SeedSequence(entropy(parts.plan.job.seed, parts.state.round, 1))
        ).permutation(ring)
    for place in ring.tolist():
        if seats[place] == parts.seat:
            began = time.perf_counter()
            parts.engine.receive()
            parts.engine.begin()
            learned = parts.engine.learn(int(drawn.clients[place]))
            update = parts.layout.planes(learned.wire)[0]
            wrong = ~torch.isfinite(update)
            fits = not bool(wrong.any())
            if fits:
                model.add_(update.cpu())
                state.counts += learned.counts.numpy()
            tally.client(place, learned.examples, learned.steps, learned.loss, 0 if fits else 1, first(wrong))
            spent += time.perf_counter() - began
        parts.comm.broadcast(state.travels, parts.rank(seats[place]))
    return spent


def _line(parts: Parts, drawn: Drawn, tally: Tally, watch: Watch) -> dict[str, Any]:
    cap = parts.plan.job.aggregation.cap
    assert cap is not None
    weight = float(np.minimum(tally.rows[:, 0] / cap, 1.0).sum())
    line = fill({"round": parts.state.round}, tally, {"weight": weight}) | parts.spent(tally, watch)
    model = parts.state.planes[0]
    line["bytes"]["down"] += len(drawn.clients) * model.numel() * model.itemsize
    line["bytes"]["up"] = tally.vector.numel() * 8
    return line | ({"cohort": drawn.told} if drawn.told else {})
