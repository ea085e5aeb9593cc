"""Clients' memory from round to round, in the run folder: any rank may serve a client next, also after a resume.

A sparse file with a record for each client: four slots, each with a stamp in the record's head: the launch and the
round that wrote it, the crc32 of its values and the crc32 of the stamp.  A round in flight overwrites nothing to which
the run may go back: the values of the last checkpoint on disk, of the one under way, and of the round's start.  The
fourth slot stays a hole until a checkpoint is under way for longer than a round.
"""

from __future__ import annotations

import errno
import json
import os
import zlib
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedmpi.flow import Refused
from fedmpi.records.seal import ordinary, table_sum, text

HEAD = 64  # bytes: a stamp of 16 for each slot
STAMP = ("launch", "values", "round", "stamp")  # four uint32: launches count from 1, so that a hole says "never"
SLOTS = 4
FEWER = 3  # in the files of earlier fedmpis, which waited for every checkpoint
SLOTS_FILE = "memory.slots"
LAUNCHES = "launches.json"
CACHE = 2**28  # bytes of clients' vectors that a rank holds in memory


class Launches(NamedTuple):
    """The contents of `launches.json`: the last round that counts of each earlier launch, and the file's form."""

    limits: list[int]
    bare: int  # so many first launches wrote no checksums
    slots: int  # of each client


class Memory:
    """Clients' vectors of `width` values, each as of a round; without a `folder` they live and die with this process.

    A launch's values count up to the checkpoint from which the next launch resumed: `launches.json` in the folder holds
    that round for each earlier launch.  `every` is the number of rounds between checkpoints (0: none).  `held` are the
    rounds of the newest checkpoint on disk and of the one under way, 0 where there is none, as home last told them:
    what a run that goes back to either of them needs is not overwritten.
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
        self.launches = Launches([], 0, SLOTS)
        self.held: tuple[int, int] = (0, 0)

    @property
    def travels(self) -> bool:
        """Return whether any rank may serve any client: its memory lies where all ranks see it."""
        return self.folder is not None

    def __del__(self) -> None:
        self.close()

    @staticmethod
    def start(folder: Path) -> None:
        """Make the files, at home before a first launch: their absence later means a loss."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / SLOTS_FILE).touch()
            _write_launches(folder, Launches([], 0, SLOTS))
        except OSError as error:
            raise Refused(f"{folder}: cannot be written: {error.strerror}") from None

    @staticmethod
    def facts(folder: Path) -> dict[str, int]:
        """Return a checkpoint's entry about clients' memory, at home between two rounds: a later loss is noticed by it.

        It holds the number of launches, this one included, and of bytes at least.
        """
        return {"launches": len(_launches(folder).limits) + 1, "bytes": (folder / SLOTS_FILE).stat().st_size}

    @staticmethod
    def check(folder: Path, facts: Mapping[str, Any]) -> bool:
        """Return whether all memory has checksums, at home; Refused where it falls short of a checkpoint's `facts`."""
        path, launches = folder / SLOTS_FILE, _launches(folder)
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
        if len(launches.limits) + 1 < facts.get("launches", 0):
            raise Refused(f"{folder / LAUNCHES}: is not that of the last launch; the run cannot go on without it")
        return not launches.bare

    @staticmethod
    def resume(folder: Path, round: int) -> bool:
        """Let earlier launches' values count up to `round` alone, at home before a launch.

        Return whether a checkpoint may be under way for longer than a round: an earlier fedmpi's file has no room for
        what that needs.
        """
        Memory.check(folder, {})
        limits, bare, slots = _launches(folder)
        _write_launches(folder, Launches([*(min(limit, round) for limit in limits), round], bare, slots))
        return slots > FEWER

    def load(self, client: int, upto: int) -> Tensor | None:
        """Return the client's last vector `(width,)` of a round not later than `upto`; None where there is none."""
        if self.folder is None:
            return next((vector for round, vector in reversed(self.own.get(client, [])) if round <= upto), None)
        head = self._head(client)
        slot = self._newest(head, upto)
        if slot is None:
            return None
        launch, values, round, check = head[slot].tolist()
        stamp = launch, round
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
        """Save the vector as of `round`, which may yet be dropped.  Refused where the disk does not take it."""
        copy = vector.detach().to("cpu", copy=True)
        if self.folder is None:
            earlier = [pair for pair in self.own.get(client, []) if pair[0] < round]
            self.own[client] = [*earlier[-1:], (round, copy)]
            return
        head = self._head(client)
        launch = len(self.launches.limits) + 1
        slot = self._free(head, launch, round)
        at, values = self._record(client), copy.numpy().view(np.uint8)
        stamp = launch, zlib.crc32(values.data), round
        try:
            os.pwrite(self.file, bytes(16), at + slot * 16)  # a kill in the midst leaves a slot that nobody reads
            _write(self.file, values, at + HEAD + slot * self.stride)
            os.pwrite(self.file, np.array([*stamp, _sum(client, stamp)], dtype="<u4").tobytes(), at + slot * 16)
        except OSError as error:
            raise Refused(f"{self._path()}: could not be written: {error.strerror}") from None
        self._remember(client, (launch, round), copy)

    def sync(self, round: int | None = None) -> None:
        """Wait until this rank's clients of a round (None: the last) are on disk, if a checkpoint counts on them."""
        if self.file >= 0 and (round is None or (self.every and round % self.every == 0)):
            try:
                os.fdatasync(self.file)
            except OSError as error:
                raise Refused(f"{self._path()}: could not be written: {error.strerror}") from None

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        if self.file >= 0:
            os.close(self.file)
            self.file = -1

    def _path(self) -> Path:
        assert self.folder is not None
        return self.folder / SLOTS_FILE

    def _record(self, client: int) -> int:
        return client * (HEAD + self.launches.slots * self.stride)

    def _head(self, client: int) -> NDArray[np.int64]:
        """Return the stamp of each slot, `(slots, 4)`; zeros where nothing was written, or it does not count."""
        if self.file < 0:
            assert self.folder is not None
            self.launches = _launches(self.folder)
            try:
                if self._path().exists():
                    ordinary(self._path())
                if self.writes:
                    self.folder.mkdir(parents=True, exist_ok=True)
                self.file = os.open(self._path(), os.O_RDWR | os.O_CREAT if self.writes else os.O_RDONLY, 0o666)
            except OSError as error:
                raise Refused(f"{self._path()}: cannot be opened: {error.strerror}") from None
        raw = np.zeros((self.launches.slots, len(STAMP)), dtype="<u4")
        os.preadv(self.file, [raw.data], self._record(client))
        head = raw.astype(np.int64)
        for stamp in head.tolist():
            if any(stamp) and not self._sound(client, stamp):
                raise self._damaged(client)
        for launch, limit in enumerate(self.launches.limits, 1):
            head[(head[:, 0] == launch) & (head[:, 2] > limit)] = 0
        return head

    def _sound(self, client: int, stamp: list[int]) -> bool:
        """Return whether a stamp is as it was written; without checksums, whether its launch wrote none."""
        launch, values, round, check = stamp
        if values or check:
            return check == _sum(client, (launch, values, round))
        return 0 < launch <= self.launches.bare and round > 0

    def _damaged(self, client: int) -> Refused:
        """Return the error of a client's damaged slot."""
        return Refused(
            f"{self._path()}: what client {client} kept was changed or damaged (its checksum differs); "
            f"the run cannot go on without it"
        )

    def _free(self, head: NDArray[np.int64], launch: int, round: int) -> int:
        """Return the slot for a vector of `round`: nobody needs what it holds, and a hole is taken last."""
        again = np.flatnonzero((head[:, 0] == launch) & (head[:, 2] == round)).tolist()  # a crossing made once more
        durable, under_way = self.held
        needed = {
            self._newest(head, upto) for upto in (max([*self.launches.limits[-1:], durable]), under_way, round - 1)
        }
        written = [slot for slot in np.argsort(head[:, 2], kind="stable").tolist() if head[slot, 0]]
        holes = np.flatnonzero(head[:, 0] == 0).tolist()
        return int(next(slot for slot in [*again, *written, *holes] if slot in again or slot not in needed))

    @staticmethod
    def _newest(head: NDArray[np.int64], upto: int) -> int | None:
        """Return the slot of the latest round up to `upto`; None where there is none."""
        rounds = np.where((head[:, 0] > 0) & (head[:, 2] <= upto), head[:, 2], 0)
        slot = int(rounds.argmax())
        return slot if rounds[slot] > 0 else None

    def _remember(self, client: int, stamp: tuple[int, int], vector: Tensor) -> None:
        self.cache[client] = stamp, vector
        self.cache.move_to_end(client)
        while len(self.cache) > 1 and len(self.cache) * self.stride > CACHE:
            self.cache.popitem(last=False)


def _write(file: int, data: NDArray[np.uint8], at: int) -> None:
    """Write all of `data`: one call may take less (a disk that fills up, more than 2 GiB)."""
    done = 0
    while done < len(data):
        wrote = os.pwrite(file, data[done:].data, at + done)
        if not wrote:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done += wrote


def _read(file: int, data: NDArray[np.uint8], at: int) -> bool:
    """Fill all of `data`, and return True; False where the file ends before."""
    done = 0
    while done < len(data):
        count = os.preadv(file, [data[done:].data], at + done)
        if not count:
            return False
        done += count
    return True


def _sum(client: int, stamp: tuple[int, int, int]) -> int:
    """Return the crc32 of a client's index and a stamp of one of its slots."""
    return zlib.crc32(np.array([client, *stamp], dtype="<i8").tobytes())


def _launches(folder: Path) -> Launches:
    """Return what the folder's file says of its launches."""
    path = folder / LAUNCHES
    try:
        table = json.loads(text(path))
        if isinstance(table, list):  # of a run that began without checksums
            return Launches(list(map(int, table)), len(table) + 1, FEWER)
        facts = [table[name] for name in ("limits", "bare", "slots") if name in table]
        if table["crc"] != table_sum(facts):
            raise ValueError("its checksum differs")
        return Launches(table["limits"], table["bare"], table.get("slots", FEWER))
    except FileNotFoundError:
        return Launches([], 1, FEWER)
    except (OSError, ValueError, TypeError, LookupError, RecursionError) as error:
        raise Refused(f"{path}: cannot be read: {error}") from None


def _write_launches(folder: Path, launches: Launches) -> None:
    """Write the file of launches; atomic, and in the form in which it was found."""
    aside = folder / ".launches.part"
    table: dict[str, Any] = {"limits": launches.limits, "bare": launches.bare}
    table |= {"slots": launches.slots} if launches.slots != FEWER else {}
    aside.write_text(json.dumps({**table, "crc": table_sum([*table.values()])}), encoding="utf-8")
    os.replace(aside, folder / LAUNCHES)
