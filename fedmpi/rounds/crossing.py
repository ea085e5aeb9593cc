"""One crossing of the updates: every loop opens it here, and home closes it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fedmpi.cohort.samplers import Drawn
from fedmpi.flow import Learned, Passage
from fedmpi.rounds.drawing import draw
from fedmpi.rounds.line import Line, Watch, add, counters, idle, seconds
from fedmpi.rounds.parts import Parts
from fedmpi.rounds.profiled import note_crossing
from fedmpi.rounds.scores import NONE, Central
from fedmpi.rounds.scribe import Scribe
from fedmpi.rounds.states import keep_states
from fedmpi.rounds.tally import Tally
from fedmpi.tell import note

WHOLE = (
    "whole numbers that clients' training changes are counts, and are added up over clients",
    "flags that a client's training sets are set for every client from the next round on",
)


def crossings(parts: Parts) -> Iterator[Crossing]:
    """Yield one crossing after another, until home ends the run; the same calls on every rank.

    Home's state must hold the first model.  Afterwards every rank's state holds the final one.  Where the strategy has
    two passes a round is two crossings, by the same cohort.  Before a crossing begins, home has written what it costs.
    """
    comm, state, stages = parts.comm, parts.state, parts.plan.stages
    if comm.is_home and state.round > parts.plan.job.rounds:
        state.ended()  # a finished run, resumed
    crossing: Crossing | None = None
    while True:
        watch = Watch()
        if parts.scribe is not None:
            parts.scribe.heed()
            parts.scribe.settled()
        comm.broadcast(state.travels)
        if state.done:
            return
        watch.mark("received")
        if parts.memory is not None:
            parts.memory.held = state.held
        parts.engine.receive()
        if not state.crossing:
            keep_states(parts, state.round - 1)
            crossing = None
        drawn = draw(parts) if crossing is None else crossing.drawn
        if drawn is None:
            return
        due = parts.scores.due(state.round)
        columns = parts.scores.columns if due and crossing is None else ()
        passage = _passage(parts, drawn)
        if parts.scribe is not None and (charges := stages.charges(passage)):
            parts.scribe.charge(passage, charges)
        counters = (*stages.counters, *_engine_s(parts))
        tally = Tally(comm.size, len(drawn.clients), counters, columns, len(state.counts), stages.hides)
        crossing = Crossing(parts, passage, drawn, tally, watch, due, crossing)
        yield crossing
        if parts.profile is not None:
            note_crossing(parts.profile, watch, passage)


def _engine_s(parts: Parts) -> tuple[str, ...]:
    """Return the names of what the engine counts: steps that it could not take as it should; an own one counts none."""
    counters: tuple[str, ...] = getattr(parts.engine, "counters", ())
    return counters


def _passage(parts: Parts, drawn: Drawn) -> Passage:
    """Return the passage of the crossing under way."""
    comm, state, seating = parts.comm, parts.state, parts.seating
    return Passage(
        round=state.round,
        layout=parts.layout,
        clients=drawn.clients,
        examples=parts.plan.shards.sizes(drawn.clients),
        times=drawn.times,
        crossing=state.crossing,
        epoch=comm.epoch,
        launch=state.launch,
        members=comm.alive,
        serving=tuple(seating.rank(seat) for seat in range(seating.seats)),
    )


@dataclass
class Crossing:
    """One crossing, on one rank: `passage` and `drawn` are the same on all of them, `tally` is summed over them.

    `before` is the crossing before it in the same round, if any: the received model is scored in the first.
    """

    parts: Parts
    passage: Passage
    drawn: Drawn
    tally: Tally
    watch: Watch
    due: bool  # the model received in this round is to be scored
    before: Crossing | None
    central: Callable[[], Central] = lambda: NONE  # waits for home's scores
    seconds: tuple[float, float] = (0.0, 0.0)  # in which this rank trained, and scored its clients
    line: Line = field(default_factory=dict)  # home's, of the round so far

    # On every rank.

    def score(self) -> None:
        """Begin to keep and score the received model, at home, in a round's first crossing, while other ranks train."""
        if self.parts.scribe is not None and self.before is None:
            self.parts.scribe.received()
            if self.due:
                self.central = self.parts.scores.central()
        self.watch.mark("scored")

    def score_client(self, place: int) -> None:
        """Score the client at a place of the cohort on the received model, where its scores are due."""
        if self.tally.scores:
            self.parts.engine.begin()
            self.tally.score(place, self.parts.scores.client(int(self.drawn.clients[place])))

    def train(self) -> Iterator[Learned]:
        """Score this rank's clients on the received model, then train them; yield their updates."""
        parts = self.parts
        places = np.array(parts.seating.places(self.drawn.clients), np.int64)
        began = time.perf_counter()
        for place in places.tolist():
            self.score_client(place)
        begun = time.perf_counter()
        trained = parts.engine.train(places, self.passage)
        if parts.profile is not None:
            trained = parts.profile.clients(trained, parts.plan.shards.id, self.drawn.clients)
        yield from trained
        if parts.memory is not None:
            parts.memory.sync(self.passage.round)
        self.seconds = time.perf_counter() - begun, begun - began

    def of(self, learned: Learned) -> Passage:
        """Return the passage of the clients just learned, with what the stages keep of them."""
        return self.passage.of(learned.places, learned.memory)

    def enter(self, learned: Learned, faults: NDArray[np.int64] | None = None) -> None:
        """Enter the counters of clients just learned, and save what they keep.

        `faults` `(K, 2)` are the reason and the place of fault of each update that could not enter the sum, zeros for
        the others: such a client keeps nothing of this round.
        """
        faults = np.zeros((len(learned.places), 2), np.int64) if faults is None else faults
        entered = faults[:, 0] == 0
        self.tally.clients(learned, faults)
        self.tally.changed(learned.counts, entered)
        learned.save(self.parts.memory, self.passage, entered)

    def arrive(self) -> Tensor:
        """Return this rank's tally, complete, to be summed over ranks."""
        parts = self.parts
        counted = parts.plan.stages.counted() | (parts.engine.counted() if _engine_s(parts) else {})  # type: ignore[attr-defined]
        self.tally.rank(parts.comm.me, *self.seconds, counted)
        self.watch.mark("arrived")
        return self.tally.vector

    def commit(self) -> None:
        """Take the sum as agreed: from here on, what clients keep counts, and home steps.

        Without membership nothing is sent for it: the next broadcast's header tells every rank that this round counts,
        and memory is read up to its round.
        """
        self.watch.mark("reduced")

    # At home, once the sums are there.

    @property
    def scribe(self) -> Scribe:
        assert self.parts.scribe is not None
        return self.parts.scribe

    @property
    def last(self) -> bool:
        """True in the last crossing of a round."""
        return self.passage.crossing + 1 == self.parts.plan.strategy.passes

    def ends(self) -> bool:
        """Complete the line of the model scored in this round; return True where the run ends with this model."""
        scribe, state, shards = self.scribe, self.parts.state, self.parts.plan.shards
        scribe.asked |= self.tally.asked
        scribe.unfit(self.tally, lambda place: shards.id(int(self.drawn.clients[place])), self._tensor)
        if not (self.last or scribe.broken):
            return False
        first = self if self.before is None else self.before
        central = first.central()
        scores = self.parts.scores.evaluation(central.scores, first.tally.client_scores) if self.due else {}
        if not scribe.scored(scores, max(float(first.tally.ranks[:, 1].max()), central.seconds)):
            return False
        state.crossing = 0
        state.ended(1 if scribe.broken else 0)
        return True

    def count(self) -> None:
        """Merge the clients' changes into the model's counts and flags, in the last crossing of a round."""
        whole, state, scribe = self.parts.flat.whole, self.parts.state, self.scribe
        if not len(state.counts) or not self.last:
            return
        before = state.counts.copy()
        state.counts[:] = whole.merged(*self.tally.changes)
        for names, rule in zip(whole.moved(before, state.counts), WHOLE, strict=True):
            if new := [name for name in names if name not in scribe.counts]:
                note(f"the model's {', '.join(map(repr, new))}: {rule}")
                scribe.counts.update(new)

    def close(self, sums: Mapping[str, float], up: int = 0, down: int = 0) -> None:
        """Write the line of this crossing, and go on to the next crossing or round.

        `up` are the bytes sent by each rank beside its tally, `down` the bytes received by each beside the broadcast.
        """
        parts, tally, state = self.parts, self.tally, self.parts.state
        self.watch.mark("stepped")
        serving = tally.ranks[parts.seating.first :, :2].sum(axis=1)
        line = {
            "round": state.round,
            **counters(tally, sums),
            "lr": parts.plan.course().lr(state.round),
            "seconds": seconds(self.watch, float(serving.max()), float(tally.ranks[:, 0].max())),
            "bytes": {"down": _bytes(state.travels) + down, "up": _bytes(tally.vector) + up},
            "idle": idle(serving),
            "lost": {"ranks": [], "clients": []},
        }
        counted = tally.counted
        engine = {name: number for name in _engine_s(parts) if (number := counted.pop(name))}
        stages = {**parts.plan.stages.ledgers(), **counted}
        line |= {"stages": stages} if stages else {}
        line |= {"engine": engine} if engine else {}
        line |= {"cohort": self.drawn.notes} if self.drawn.notes else {}
        self.line = add(self.before.line if self.before else {}, line)
        if not self.last:
            state.crossing += 1
            return
        self.scribe.crossed(self.line)
        paces, seating = parts.paces, parts.seating
        if paces is not None and paces.note(self.drawn.clients, tally.ranks[seating.first :, 0].copy()):
            state.paces[:] = paces.fit(seating.loads)
        state.crossing = 0
        state.round += 1
        if state.round > parts.plan.job.rounds:
            state.ended()

    def _tensor(self, at: int) -> str:
        """Return the name of the tensor at a place of the wire, as the end of a phrase; "" where a sum lies there."""
        layout, flat = self.passage.layout, self.parts.flat
        name = flat.name(at % layout.size) if at < layout.up * layout.size else None
        if name is None:
            return ""
        return f" of the {'parameter' if at % layout.size < layout.trained.stop else 'buffer'} {name!r}"


def _bytes(vector: Tensor) -> int:
    return vector.numel() * vector.itemsize
