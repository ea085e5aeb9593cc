"""What clients keep from round to round, in the run folder: any rank may serve a client next, also after a resume.

A sparse file with a record for each client: three slots, each with the launch and the round that wrote it in the
record's head.  A round in flight overwrites neither what the last checkpoint covers nor what the round began with.
"""

from __future__ import annotations

import errno
import json
import os
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedmpi.flow import Refused

HEAD = 64  # bytes: (launch, round) for each slot, as int64; launches count from 1, so that a hole says "never"
SLOTS = 3
SLOTS_FILE = "memory.slots"
CACHE = 2**28  # bytes of clients' vectors that a rank holds in memory


class Memory:
    """Clients' vectors of `width` values, each as of a round; without a `folder` they live and die with this process.

    What a launch wrote counts as far as the checkpoint that the next one resumed from: `launches` in the folder says
    how far that is for each earlier launch.  `every` is how many rounds lie between checkpoints (0: none).
    """

    def __init__(
        self, folder: Path | None, width: int, dtype: torch.dtype, every: int = 0, writes: bool = True
    ) -> None:
        self.writes = writes
        self.folder, self.width, self.dtype, self.every = folder, width, dtype, every
        self.stride = -(-width * dtype.itemsize // HEAD) * HEAD
        self.cache: OrderedDict[int, tuple[tuple[int, int], Tensor]] = OrderedDict()
        self.own: dict[int, list[tuple[int, Tensor]]] = {}  # without a folder
        self.file = -1
        self.limits: list[int] = []

    @property
    def travels(self) -> bool:
        """Any rank may serve any client: what it keeps is where all ranks see it."""
        return self.folder is not None

    def __del__(self) -> None:
        self.close()

    @staticmethod
    def start(folder: Path) -> None:
        """At home, before a first launch: the place, so that its absence later says that it was lost."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / SLOTS_FILE).touch()
        except OSError as error:
            raise Refused(f"{folder}: cannot be written: {error.strerror}") from None

    @staticmethod
    def resume(folder: Path, round: int) -> None:
        """At home, before a launch: what earlier launches wrote counts up to `round` alone."""
        limits = [min(limit, round) for limit in _limits(folder)] + [round]
        if not (folder / SLOTS_FILE).exists():
            raise Refused(f"{folder / SLOTS_FILE}: is gone, and the run cannot go on without what its clients kept")
        folder.mkdir(parents=True, exist_ok=True)
        aside = folder / ".launches.part"
        aside.write_text(json.dumps(limits), encoding="utf-8")
        os.replace(aside, folder / "launches.json")

    def load(self, client: int, upto: int) -> Tensor | None:
        """The vector `(width,)` that the client kept last, not later than round `upto`; None where it never did."""
        if self.folder is None:
            return next((vector for round, vector in reversed(self.own.get(client, [])) if round <= upto), None)
        head = self._head(client)
        slot = self._newest(head, upto)
        if slot is None:
            return None
        stamp = int(head[slot, 0]), int(head[slot, 1])
        cached = self.cache.get(client)
        if cached is not None and cached[0] == stamp:
            self.cache.move_to_end(client)
            return cached[1]
        vector = torch.empty(self.width, dtype=self.dtype)
        place = self._record(client) + HEAD + slot * self.stride
        if not _read(self.file, vector.numpy().view(np.uint8), place):
            raise Refused(f"{self._path()}: is cut short at client {client}; the run cannot go on without it")
        self._remember(client, stamp, vector)
        return vector

    def save(self, client: int, round: int, vector: Tensor) -> None:
        """Keep the vector as of `round`, which may yet be dropped.  Refused where the disk does not take it."""
        kept = vector.detach().to("cpu", copy=True)
        if self.folder is None:
            earlier = [pair for pair in self.own.get(client, []) if pair[0] < round]
            self.own[client] = [*earlier[-1:], (round, kept)]
            return
        head, launch = self._head(client), len(self.limits) + 1
        covered = max([*self.limits[-1:], (round - 2) // self.every * self.every if self.every else 0, 0])
        needed = {self._newest(head, covered), self._newest(head, round - 1)}
        again = np.flatnonzero((head == (launch, round)).all(axis=1)).tolist()  # a crossing made once more
        oldest = np.argsort(head[:, 1], kind="stable").tolist()
        slot = next(slot for slot in [*again, *oldest] if slot in again or slot not in needed)
        at = self._record(client)
        try:
            self._stamp(at, slot, 0, 0)  # a kill while the values are written leaves a slot that nobody reads
            _write(self.file, kept.numpy().view(np.uint8), at + HEAD + slot * self.stride)
            self._stamp(at, slot, launch, round)
        except OSError as error:
            raise Refused(f"{self._path()}: could not be written: {error.strerror}") from None
        self._remember(client, (launch, round), kept)

    def sync(self, round: int | None = None) -> None:
        """After this rank's clients of a round (or the last): let them reach the disk, if a checkpoint counts on it."""
        if self.file >= 0 and (round is None or (self.every and round % self.every == 0)):
            try:
                os.fdatasync(self.file)
            except OSError as error:
                raise Refused(f"{self._path()}: could not be written: {error.strerror}") from None

    def close(self) -> None:
        if self.file >= 0:
            os.close(self.file)
            self.file = -1

    def _path(self) -> Path:
        assert self.folder is not None
        return self.folder / SLOTS_FILE

    def _record(self, client: int) -> int:
        return client * (HEAD + SLOTS * self.stride)

    def _head(self, client: int) -> NDArray[np.int64]:
        """(slots, 2) launch and round of each slot; zeros where nothing was written, or nothing that counts."""
        if self.file < 0:
            assert self.folder is not None
            self.limits = _limits(self.folder)
            try:
                if self.writes:
                    self.folder.mkdir(parents=True, exist_ok=True)
                self.file = os.open(self._path(), os.O_RDWR | os.O_CREAT if self.writes else os.O_RDONLY, 0o666)
            except OSError as error:
                raise Refused(f"{self._path()}: cannot be opened: {error.strerror}") from None
        head = np.zeros((SLOTS, 2), dtype=np.int64)
        os.preadv(self.file, [head.data], self._record(client))
        for launch, limit in enumerate(self.limits, 1):
            head[(head[:, 0] == launch) & (head[:, 1] > limit)] = 0
        return head

    @staticmethod
    def _newest(head: NDArray[np.int64], upto: int) -> int | None:
        rounds = np.where((head[:, 0] > 0) & (head[:, 1] <= upto), head[:, 1], 0)
        slot = int(rounds.argmax())
        return slot if rounds[slot] > 0 else None

    def _stamp(self, record: int, slot: int, launch: int, round: int) -> None:
        os.pwrite(self.file, np.array([launch, round], dtype=np.int64).tobytes(), record + slot * 16)

    def _remember(self, client: int, stamp: tuple[int, int], vector: Tensor) -> None:
        self.cache[client] = stamp, vector
        self.cache.move_to_end(client)
        while len(self.cache) > 1 and len(self.cache) * self.stride > CACHE:
            self.cache.popitem(last=False)


def _write(file: int, data: NDArray[np.uint8], at: int) -> None:
    """All of it: one call may take less (a disk that fills up, more than 2 GiB)."""
    done = 0
    while done < len(data):
        wrote = os.pwrite(file, data[done:].data, at + done)
        if not wrote:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done += wrote


def _read(file: int, data: NDArray[np.uint8], at: int) -> bool:
    """All of it, as `_write`; False where the file ends before."""
    done = 0
    while done < len(data):
        found = os.preadv(file, [data[done:].data], at + done)
        if not found:
            return False
        done += found
    return True


def _limits(folder: Path) -> list[int]:
    try:
        return list(map(int, json.loads((folder / "launches.json").read_text(encoding="utf-8"))))
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise Refused(f"{folder / 'launches.json'}: cannot be read: {error}") from None
