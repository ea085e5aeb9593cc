"""What clients keep from round to round, in the run folder: any rank may serve a client next, also after a resume.

A sparse file with a record for each client: three slots, each with a stamp in the record's head: the launch and the
round that wrote it, the crc32 of its values and the crc32 of the stamp.  A round in flight overwrites neither what the
last checkpoint covers nor what the round began with.
"""

from __future__ import annotations

import errno
import json
import os
import zlib
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedmpi.flow import Refused
from fedmpi.records.seal import ordinary, table_sum, text

HEAD = 64  # bytes: a stamp of 16 for each slot, and 16 that are free
STAMP = ("launch", "values", "round", "stamp")  # four uint32: launches count from 1, so that a hole says "never"
SLOTS = 3
SLOTS_FILE = "memory.slots"
LAUNCHES = "launches.json"
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
        self.bare = 0  # so many first launches wrote no checksums

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
            _keep(folder, [], 0)
        except OSError as error:
            raise Refused(f"{folder}: cannot be written: {error.strerror}") from None

    @staticmethod
    def facts(folder: Path) -> dict[str, int]:
        """At home, between two rounds: what a checkpoint says of clients' memory, so that it is missed where it goes.

        How many launches wrote it, this one included, and how many bytes it has at least.
        """
        return {"launches": len(_launches(folder)[0]) + 1, "bytes": (folder / SLOTS_FILE).stat().st_size}

    @staticmethod
    def check(folder: Path, facts: Mapping[str, Any]) -> bool:
        """At home: Refused where a run cannot go on with it, by its checkpoint's `facts`; whether all has checksums."""
        path, (limits, bare) = folder / SLOTS_FILE, _launches(folder)
        try:
            ordinary(path)
            size = path.stat().st_size
        except FileNotFoundError:
            raise Refused(f"{path}: is gone, and the run cannot go on without what its clients kept") from None
        except OSError as error:
            raise Refused(f"{path}: cannot be read: {error.strerror}") from None
        if size < facts.get("bytes", 0):
            raise Refused(
                f"{path}: is cut short ({size:,} bytes, it had {facts['bytes']:,}); the run cannot go on without it"
            )
        if len(limits) + 1 < facts.get("launches", 0):
            raise Refused(f"{folder / LAUNCHES}: is not that of the last launch; the run cannot go on without it")
        return not bare

    @staticmethod
    def resume(folder: Path, round: int) -> None:
        """At home, before a launch: what earlier launches wrote counts up to `round` alone."""
        Memory.check(folder, {})
        limits, bare = _launches(folder)
        _keep(folder, [*(min(limit, round) for limit in limits), round], bare)

    def load(self, client: int, upto: int) -> Tensor | None:
        """The vector `(width,)` that the client kept last, not later than round `upto`; None where it never did."""
        if self.folder is None:
            return next((vector for round, vector in reversed(self.own.get(client, [])) if round <= upto), None)
        head = self._head(client)
        slot = self._newest(head, upto)
        if slot is None:
            return None
        launch, values, kept, check = head[slot].tolist()
        stamp = launch, kept
        cached = self.cache.get(client)
        if cached is not None and cached[0] == stamp:
            self.cache.move_to_end(client)
            return cached[1]
        vector = torch.empty(self.width, dtype=self.dtype)
        place = self._record(client) + HEAD + slot * self.stride
        if not _read(self.file, vector.numpy().view(np.uint8), place):
            raise Refused(f"{self._path()}: is cut short at client {client}; the run cannot go on without it")
        if (values or check) and zlib.crc32(vector.numpy().view(np.uint8).data) != values:
            raise self._damaged(client)
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
        again = np.flatnonzero((head[:, 0] == launch) & (head[:, 2] == round)).tolist()  # a crossing made once more
        oldest = np.argsort(head[:, 2], kind="stable").tolist()
        slot = next(slot for slot in [*again, *oldest] if slot in again or slot not in needed)
        at, values = self._record(client), kept.numpy().view(np.uint8)
        stamp = launch, zlib.crc32(values.data), round
        try:
            os.pwrite(self.file, bytes(16), at + slot * 16)  # a kill in the midst leaves a slot that nobody reads
            _write(self.file, values, at + HEAD + slot * self.stride)
            os.pwrite(self.file, np.array([*stamp, _sum(client, stamp)], dtype="<u4").tobytes(), at + slot * 16)
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
        """(slots, 4) the stamp of each slot; zeros where nothing was written, or nothing that counts."""
        if self.file < 0:
            assert self.folder is not None
            self.limits, self.bare = _launches(self.folder)
            try:
                if self._path().exists():
                    ordinary(self._path())
                if self.writes:
                    self.folder.mkdir(parents=True, exist_ok=True)
                self.file = os.open(self._path(), os.O_RDWR | os.O_CREAT if self.writes else os.O_RDONLY, 0o666)
            except OSError as error:
                raise Refused(f"{self._path()}: cannot be opened: {error.strerror}") from None
        raw = np.zeros((SLOTS, len(STAMP)), dtype="<u4")
        os.preadv(self.file, [raw.data], self._record(client))
        head = raw.astype(np.int64)
        for stamp in head.tolist():
            if any(stamp) and not self._sound(client, stamp):
                raise self._damaged(client)
        for launch, limit in enumerate(self.limits, 1):
            head[(head[:, 0] == launch) & (head[:, 2] > limit)] = 0
        return head

    def _sound(self, client: int, stamp: list[int]) -> bool:
        """A stamp is as it was written; one without checksums is where its launch wrote none."""
        launch, values, round, check = stamp
        if values or check:
            return check == _sum(client, (launch, values, round))
        return 0 < launch <= self.bare and round > 0

    def _damaged(self, client: int) -> Refused:
        return Refused(
            f"{self._path()}: what client {client} kept was changed or damaged (its checksum differs); "
            f"the run cannot go on without it"
        )

    @staticmethod
    def _newest(head: NDArray[np.int64], upto: int) -> int | None:
        rounds = np.where((head[:, 0] > 0) & (head[:, 2] <= upto), head[:, 2], 0)
        slot = int(rounds.argmax())
        return slot if rounds[slot] > 0 else None

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


def _sum(client: int, stamp: tuple[int, int, int]) -> int:
    """The crc32 of whose slot this is, and what it says."""
    return zlib.crc32(np.array([client, *stamp], dtype="<i8").tobytes())


def _launches(folder: Path) -> tuple[list[int], int]:
    """Up to which round each earlier launch counts, and how many first launches wrote no checksums."""
    path = folder / LAUNCHES
    try:
        held = json.loads(text(path))
        if isinstance(held, list):  # of a run that began without checksums
            return list(map(int, held)), len(held) + 1
        limits, bare = held["limits"], held["bare"]
        if held["crc"] != table_sum([limits, bare]):
            raise ValueError("its checksum differs")
        return limits, bare
    except FileNotFoundError:
        return [], 1
    except (OSError, ValueError, TypeError, LookupError, RecursionError) as error:
        raise Refused(f"{path}: cannot be read: {error}") from None


def _keep(folder: Path, limits: list[int], bare: int) -> None:
    """Write them, atomically."""
    aside = folder / ".launches.part"
    kept = {"limits": limits, "bare": bare, "crc": table_sum([limits, bare])}
    aside.write_text(json.dumps(kept), encoding="utf-8")
    os.replace(aside, folder / LAUNCHES)
