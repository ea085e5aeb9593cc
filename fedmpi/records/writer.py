"""Checkpoints written beside the run, by a thread, from snapshots."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fedmpi.flat import zeros
from fedmpi.records.checkpoint import Checkpoints
from fedmpi.records.journal import Journal
from fedmpi.records.profile import Profile

REST = 9  # times as long as a write took is none begun of itself: writing costs a run a tenth of a core at most
SPARE = 1  # snapshots' memory kept for later ones: while one is written, another is filled


@dataclass
class Snapshot:
    """The state of a run after `round` rounds, in memory of its own."""

    round: int
    tensors: dict[str, Tensor]
    metadata: dict[str, Any]
    kept: bool = True  # under its round's name
    best: bool = False  # as the best one


class Writer:
    """Writes the newest snapshot handed over, one at a time: one that was not begun gives way to a newer one.

    After each it rests, unless somebody waits: where rounds are short, or the disk is slow, not every one is kept.
    `durable` is the newest round on disk.  What goes wrong is raised by the next call.  The lines of the journal reach
    the disk before a checkpoint that counts on them.
    """

    def __init__(
        self, checkpoints: Checkpoints, journal: Journal, durable: int = 0, profile: Profile | None = None
    ) -> None:
        self.checkpoints, self.journal, self.durable, self.profile = checkpoints, journal, durable, profile
        self.waiting: list[Snapshot] = []  # at most one to keep, and the best so far
        self.writing: Snapshot | None = None
        self.free: list[dict[str, Tensor]] = []  # the memory of snapshots that were written
        self.error: Exception | None = None
        self.changed = threading.Condition()
        self.thread: threading.Thread | None = None
        self.rested = 0.0  # when the next write may begin
        self.urgent = 0  # waits under way

    def hand(self, round: int, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
        """Hand over the state after `round` rounds; its tensors may change as soon as this returns."""
        snapshot = Snapshot(round, self._copied(tensors), dict(metadata))
        with self.changed:
            for given in [given for given in self.waiting if given.kept]:
                given.kept = False
                self._drop(given)
            self._add(snapshot)

    def hand_best(self, round: int, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
        """Say that the state after `round` rounds, handed over or not, is the best so far."""
        with self.changed:
            for given in [given for given in self.waiting if given.best]:
                given.best = False
                self._drop(given)
            same = [given for given in (*self.waiting, self.writing) if given is not None and given.round == round]
            if same:
                same[0].best = True
                return
        snapshot = Snapshot(round, self._copied(tensors), dict(metadata), kept=False, best=True)
        with self.changed:
            self._add(snapshot)

    @property
    def held(self) -> tuple[int, int]:
        """The rounds of the newest checkpoint on disk, and of the one under way; 0 where there is none."""
        with self.changed:
            under_way = self.writing.round if self.writing is not None and self.writing.kept else 0
            return self.durable, under_way

    def begun(self) -> None:
        """Wait until no checkpoint waits for its turn: at most one is under way then."""
        self._wait(lambda: not any(given.kept for given in self.waiting))

    def wait(self) -> None:
        """Wait until all that was handed over is on disk."""
        self._wait(lambda: not (self.waiting or self.writing))

    def _wait(self, done: Callable[[], bool]) -> None:
        with self.changed:
            self.urgent += 1
            self.changed.notify_all()
            self.changed.wait_for(lambda: self.error is not None or done())
            self.urgent -= 1
            self._raise()

    def _add(self, snapshot: Snapshot) -> None:
        self._raise()
        self.waiting.append(snapshot)
        if self.thread is None:
            self.thread = threading.Thread(target=self._write, name="checkpoints", daemon=True)
            self.thread.start()
        self.changed.notify_all()

    def _drop(self, snapshot: Snapshot) -> None:
        """Forget a waiting snapshot that nobody needs any more."""
        if not (snapshot.kept or snapshot.best):
            self.waiting.remove(snapshot)
            self._release(snapshot)

    def _release(self, snapshot: Snapshot) -> None:
        """Let a later snapshot have the memory of one that is no more needed."""
        if len(self.free) < SPARE:
            self.free.append(snapshot.tensors)

    def _raise(self) -> None:
        error, self.error = self.error, None
        if error is not None:
            raise error

    def _copied(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return copies of tensors, in the memory of an earlier snapshot where it fits: fresh pages cost as much."""
        with self.changed:
            memory = self.free.pop() if self.free else {}
        copies = {}
        for name, tensor in tensors.items():
            there = memory.get(name)
            if there is None or there.shape != tensor.shape or there.dtype != tensor.dtype:
                there = zeros(tensor.numel(), tensor.dtype).view(tensor.shape)
            copies[name] = there.copy_(tensor.detach())
        return copies

    def _write(self) -> None:
        """Write one snapshot after another; the thread's own."""
        while True:
            with self.changed:
                while not self.waiting or (not self.urgent and time.monotonic() < self.rested):
                    self.changed.wait(max(0.0, self.rested - time.monotonic()) if self.waiting else None)
                self.writing = snapshot = min(self.waiting, key=lambda given: given.round)
                self.waiting.remove(snapshot)
            error: Exception | None = None
            began, kept = time.perf_counter(), snapshot.kept
            try:
                self.journal.sync()
                if kept:
                    self.checkpoints.save(snapshot.round, snapshot.tensors, snapshot.metadata)
                with self.changed:
                    best = snapshot.best
                if best:
                    self.checkpoints.save_best(snapshot.round, snapshot.tensors, snapshot.metadata)
            except Exception as failed:
                error = failed
            if self.profile is not None:
                self.profile.span("checkpoints", f"round {snapshot.round}", began, time.perf_counter())
            with self.changed:
                if snapshot.best and not best and error is None:  # it became the best while it was written
                    snapshot.kept = False
                    self.waiting.append(snapshot)
                else:
                    self._release(snapshot)
                if error is None and kept:  # the best alone is nothing to go on from
                    self.durable = max(self.durable, snapshot.round)
                self.error, self.writing = error or self.error, None
                self.rested = time.monotonic() + REST * (time.perf_counter() - began)
                self.changed.notify_all()
