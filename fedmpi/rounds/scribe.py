"""The scribe: home's journal lines, checkpoints, and the end of a run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from torch import Tensor

from fedmpi import hear
from fedmpi.flow import REASONS, Passage, State
from fedmpi.plan import Plan
from fedmpi.records.checkpoint import Checkpoints, pack, unpack
from fedmpi.records.folder import RunFolder
from fedmpi.records.journal import Journal
from fedmpi.records.ledger import Ledger
from fedmpi.records.memory import SLOTS_FILE, Memory
from fedmpi.records.profile import Profile
from fedmpi.records.writer import Writer
from fedmpi.rounds.line import Line
from fedmpi.rounds.listeners import Listener, reason
from fedmpi.rounds.tally import Tally
from fedmpi.tell import Interrupted


@contextmanager
def written(scribe: Scribe | None) -> Iterator[None]:
    """Let no checkpoint be under way behind this, whatever ends it."""
    try:
        yield
    except BaseException:
        if scribe is not None:
            with suppress(Exception):  # what ends the run is told, and not what came of it
                scribe.flush()
        raise
    if scribe is not None:
        scribe.flush()


class Scribe:
    """The writer of the journal and checkpoints: line t is written a round late, scored by the clients of round t + 1.

    Checkpoint t carries the unfinished line, the stop counters and the best so far.  Without a `folder` nothing is
    written; `lines` and the listeners get the lines all the same.  It `waits` for late checkpoints where clients keep
    something.
    """

    def __init__(
        self,
        plan: Plan,
        state: State,
        folder: RunFolder | None = None,
        listeners: Sequence[Listener] = (),
        waits: bool = False,
        profile: Profile | None = None,
    ) -> None:
        self.state, self.strategy, self.stopper = state, plan.strategy, plan.stopper
        self.every, self.facts = plan.job.checkpoint.every, {"digest": plan.shards.digest}
        self.listeners = listeners
        self.lines: list[Line] = []
        self.pending: Line | None = None  # line t, until its model has been scored
        self.stopped: str | None = None
        self.broken: str | None = None  # the reason for a run that cannot go on
        self.asked = False  # a rank was asked to stop
        self.counts: set[str] = set()  # the names of counts and flags the user was told of
        self.before = 0.0  # seconds of earlier launches
        self.began = time.perf_counter()
        self.clients = folder.clients if folder else None
        self.waits, self.profile = waits, profile
        self.narrow = False  # clients' memory has no room for a checkpoint under way
        self.remembered: Mapping[str, int] = {}  # the facts of clients' memory for the next checkpoint
        self.states: dict[int, dict[str, Tensor]] = {}  # of each rank's stages, for the next checkpoint
        self.journal = Journal(folder.journal) if folder else None
        self.ledger = Ledger(folder.ledger) if folder else None
        self.checkpoints = Checkpoints(folder.checkpoints, plan.job.checkpoint.keep) if folder else None
        self.writer: Writer | None = None
        if self.checkpoints is not None and self.journal is not None:
            self.writer = Writer(self.checkpoints, self.journal, profile=profile)

    @property
    def elapsed(self) -> float:
        """The seconds of this launch and of the earlier ones."""
        return self.before + time.perf_counter() - self.began

    def resume(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any], lines: list[Line]) -> None:
        """Go on from a checkpoint, and the lines of the rounds before: state, server and counters as they were."""
        assert self.journal is not None
        assert self.checkpoints is not None
        self.state.planes.copy_(tensors["planes"])
        self.state.said[:] = metadata["said"]
        self.state.counts[:] = metadata.get("counts", self.state.counts)
        self.state.round = metadata["round"] + 1
        self.strategy.load(unpack("strategy", tensors))
        self.stopper.load(metadata["stop"])
        self.pending, self.before = metadata["pending"], metadata["elapsed"]
        self.remembered = metadata.get("clients", {})
        self.lines = lines
        for name, tensor in unpack("stages", tensors).items():
            rank, part = name.split(".", 1)
            self.states.setdefault(int(rank), {})[part] = tensor
        self.journal.cut(metadata["round"])
        self.checkpoints.after(metadata["round"])
        self.writer = Writer(self.checkpoints, self.journal, metadata["round"], self.profile)

    @property
    def ended(self) -> str:
        """The reason of the run's end, in a few words."""
        return self.broken or self.stopped or "rounds"

    def heed(self) -> None:
        """End the run for now, between two rounds, where a rank was asked to stop, by the next broadcast."""
        if self.state.crossing or self.broken or self.stopped:
            return
        if self.asked or hear.asked():
            self.state.ended(Interrupted.code)

    def charge(self, passage: Passage, charges: Mapping[str, Any]) -> None:
        """Write down what it costs to release a crossing's sum, before it begins."""
        if self.ledger is not None:
            at = {"round": passage.round, "crossing": passage.crossing, "launch": passage.launch}
            self.ledger.write({**at, "charges": charges})

    def received(self) -> None:
        """Have the checkpoint of the received model written, while the clients train on it."""
        round = self.state.round - 1
        if self.writer is not None and self.every and round and round % self.every == 0:
            self.writer.hand(round, *self._checkpoint())

    def settled(self) -> None:
        """Before the next broadcast: tell the rounds to which the run may go back, and wait where they are too many.

        Clients keep what the newest checkpoint on disk covers, the one under way, what the round began with, and what
        it makes of that: four slots, so a second one may not be under way.  Files of earlier fedmpis have three.
        """
        if self.writer is None:
            return
        if self.narrow:
            self.writer.wait()
        elif self.waits:
            self.writer.begun()
        self.state.held = self.writer.held

    def checkpoint(self) -> None:
        """Write the checkpoint of the last round's model, with all state for the next round, and wait for it."""
        if self.writer is not None:
            self.writer.hand(self.state.round - 1, *self._checkpoint())
            self.writer.wait()

    def flush(self) -> None:
        """Wait for the checkpoints under way, at the end of a run, whatever ends it."""
        if self.writer is not None:
            self.writer.wait()

    def _checkpoint(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return a checkpoint's tensors and metadata."""
        tensors = {"planes": self.state.planes, **pack("strategy", self.strategy.state())}
        for rank, state in self.states.items():
            tensors |= pack(f"stages.{rank}", state)
        return tensors, {
            **self.facts,
            "round": self.state.round - 1,
            "said": self.state.said.tolist(),
            "counts": self.state.counts.tolist(),
            "pending": self.pending,
            "stop": self.stopper.state(),
            "elapsed": self.elapsed,
            **({"clients": self.remembered} if self.remembered else {}),
        }

    def scored(self, evaluation: Mapping[str, Any], seconds: float) -> bool:
        """Complete the line of the model just scored, and write it; return True where the run ends with this model.

        A last line is held back for `close`, since the final model is scored once more, on all clients.  One that is
        the last since a listener says so was written already, and is written anew.
        """
        line = self.pending
        if line is None:
            return self.broken is not None
        line["evaluation"] = evaluation
        line["seconds"]["evaluate"] = seconds
        self.stopped = self.stopper.look(line)
        if evaluation and self.stopper.improved(line) and self.writer is not None:
            self.writer.hand_best(self.state.round - 1, *self._checkpoint())
        if self.stopped or self.broken:
            return True
        self.stopped = reason(self.listeners, self._write(line), line)
        return self.stopped is not None

    def crossed(self, line: Line) -> None:
        """Hold back the line of a finished round, until its model has been scored."""
        line["seconds"]["elapsed"] = self.elapsed
        self.pending = line
        if self.clients is not None and (self.clients / SLOTS_FILE).exists():
            self.remembered = Memory.facts(self.clients)

    def unfit(self, tally: Tally, name: Callable[[int], str], tensor: Callable[[int], str]) -> None:
        """Note clients' updates that could not enter the sum: the run ends with the model of the round before."""
        if tally.unfit:
            reasons = "; ".join(
                f"client {name(place)}'s update{tensor(at)} {REASONS[reason]}" for place, reason, at in tally.unfit[:3]
            )
            more = f"; and {len(tally.unfit) - 3} more" if len(tally.unfit) > 3 else ""
            self.broken = f"round {self.state.round}: {reasons}{more}"

    def close(self, evaluation: Mapping[str, Any]) -> None:
        """Write the last line, with the final model's scores on all held-out examples; nobody's answer counts now."""
        if self.pending is None:
            return
        if self.lines and self.lines[-1]["round"] == self.pending["round"]:
            self.lines.pop()
            if self.journal is not None:
                self.journal.cut(self.pending["round"])
        self._write({**self.pending, "evaluation": evaluation, "stopped": self.ended})

    def _write(self, line: Line) -> list[Any]:
        """Write a whole line to the journal, tell it to the listeners, and return their answers."""
        self.lines.append(line)
        if self.journal is not None:
            self.journal.write(line)
        return [listener(line) for listener in self.listeners]
