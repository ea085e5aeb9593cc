"""Synchronous rounds: one Bcast, local training, one weighted Reduce, the server's step."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from fedmpi.cohort.samplers import Drawn
from fedmpi.flow import Passage, Unfit
from fedmpi.plan.plan import Loop
from fedmpi.rounds.parts import Parts, Watch
from fedmpi.rounds.scribe import Scribe, add, fill
from fedmpi.rounds.tally import Tally


def loop() -> Loop:
    """One broadcast, local training, one weighted reduction, the server's step."""
    return Loop(run)


def run(parts: Parts) -> None:
    """Rounds until the state says that the run is over, then the final model's scores; the same calls on every rank.

    Home's state must hold the model to begin with.  Afterwards every rank's engine holds the final model.  Where the
    strategy has two passes a round is two of these crossings, by the same cohort; what is told is told in the last.
    """
    comm, state, scribe = parts.comm, parts.state, parts.scribe
    if comm.is_home and state.round > parts.plan.job.rounds:
        state.ended()  # a finished run, resumed
    told: dict[str, Any] = {}  # at home: what the crossings of this round took, and the received model's scores
    while True:
        watch = Watch()
        parts.heed()
        comm.broadcast(state.travels)
        if state.done:
            break
        watch.mark("received")
        parts.engine.receive()
        first = state.crossing == 0
        if first:
            found = parts.draw()
            if found is None:
                break
            drawn = found
        passage = Passage(state.round, drawn.clients, parts.layout, state.crossing)
        scores = parts.columns if first and parts.due() else ()
        tally = Tally(comm.size, len(drawn.clients), parts.counters, scores, len(state.counts))
        parts.path.begin()
        central = {}
        if scribe is not None and first:
            scribe.received()
            central = parts.central() if parts.due() else {}
        watch.mark("scored")
        busy = _serve(parts, passage, drawn, tally)
        tally.rank(comm.me, *busy, parts.path.counters())
        watch.mark("arrived")
        crossed = parts.path.collect(passage, tally.vector)
        watch.mark("reduced")
        if scribe is not None and crossed is not None:
            if first:
                told = parts.told(central, tally, watch) | {"line": {}}
            _turn(parts, scribe, passage, drawn, crossed, tally, told, watch)
    parts.close()


def _turn(
    parts: Parts,
    scribe: Scribe,
    passage: Passage,
    drawn: Drawn,
    crossed: tuple[Tensor, dict[str, float]],
    tally: Tally,
    told: dict[str, Any],
    watch: Watch,
) -> None:
    """Home's turn: the line of the model just scored, then either the end or the next step."""
    state, plan = parts.state, parts.plan
    mean, sums = crossed
    last = state.crossing + 1 == plan.strategy.passes
    if not torch.isfinite(mean.sum()):
        scribe.broken = f"round {state.round}: the mean update is not finite; a smaller local.lr may help"
    if (last or tally.unfit or scribe.broken) and parts.ends(scribe, passage.clients, tally, told):
        return
    if sums["clients"] > 0:  # a round to which nobody came changes nothing
        plan.strategy.step(state, mean, sums)
        parts.count(scribe, tally)
    watch.mark("stepped")
    line = fill({"round": state.round}, tally, sums) | parts.spent(tally, watch)
    ledgers = {type(stage).__name__.lower(): stage.ledger() for stage in parts.path.stages}
    stages = {name: ledger for name, ledger in ledgers.items() if ledger} | tally.counted
    line |= ({"stages": stages} if stages else {}) | ({"cohort": drawn.told} if drawn.told else {})
    told["line"] = line = add(told["line"], line)
    if not last:
        state.crossing += 1
        return
    parts.advance(scribe, line)


def _serve(parts: Parts, passage: Passage, drawn: Drawn, tally: Tally) -> tuple[float, float]:
    """Score and train this rank's clients, and enter their updates; seconds of training and of scoring."""
    trained = scored = 0.0
    for place in parts.deal(passage.clients):
        index = int(passage.clients[place])
        began = time.perf_counter()
        parts.engine.begin()
        if tally.scores:
            tally.score(place, parts.score(index))
        begun = time.perf_counter()
        times, reason, at = int(drawn.times[place]), 0, 0
        learned = parts.engine.learn(index, times)
        try:
            parts.path.add(learned.wire, passage.of(index, learned.examples, times))
            tally.counted_by(learned.counts)
        except Unfit as unfit:
            reason, at = unfit.reason, unfit.at
        tally.client(place, learned.examples, learned.steps, learned.loss, reason, at)
        scored += begun - began
        trained += time.perf_counter() - begun
    if parts.memory is not None:
        begun = time.perf_counter()
        parts.memory.sync(passage.round)
        trained += time.perf_counter() - begun
    return trained, scored
