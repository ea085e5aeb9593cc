"""Ranks over MPI: typed buffers through collectives, never a pickle, a message or a polling server."""

from __future__ import annotations

import time
from typing import NoReturn

import numpy as np
from mpi4py import MPI
from torch import Tensor

from fedmpi import tell
from fedmpi.comm.leaving import abort, watch
from fedmpi.comm.topology import NodePlace, mask, share, together
from fedmpi.flow import Refused

LIMIT = 2**30  # elements a collective carries at once: counts stay within an int on every MPI


class Elsewhere(Refused):
    """A refusal by another rank, told there; this rank only leaves."""


class World:
    """A communicator over MPI; `me` is the rank's birth id, 0 the server.

    Where ranks outnumber cores, a waiting rank would burn a core needed by another (MPI's waiting calls spin): it then
    polls a barrier with growing sleeps, and only then makes the blocking call, which no longer waits.  The choice is
    made once for the whole communicator, since a non-blocking call on one rank never matches a blocking one on another.
    """

    def __init__(self, comm: MPI.Comm, limit: int = LIMIT) -> None:
        self.mpi = comm.Dup()
        self.me, self.size, self.limit = self.mpi.Get_rank(), self.mpi.Get_size(), limit
        self.is_home = self.is_scribe = self.me == 0
        self.library = MPI.Get_library_version().split("\n")[0].strip("\x00 ")
        node = self.mpi.Split_type(MPI.COMM_TYPE_SHARED)
        masks = node.allgather(mask())
        local_size = node.Get_size()
        crowded = self.mpi.allreduce(local_size > together(masks), op=MPI.LOR)
        self.place = NodePlace(node.Get_rank(), local_size, share(masks, mask()), crowded)
        node.Free()
        self.owes = self.size > 1  # others wait for this rank: until all have settled
        if self.size > 1:
            watch(self)

    def broadcast(self, vector: Tensor, root: int = 0) -> None:
        """Copy the `vector` of rank `root` to every rank, in place."""
        self._begin()
        flat = vector.view(-1).numpy()
        for start in range(0, len(flat), self.limit):
            self.mpi.Bcast(flat[start : start + self.limit], root=root)

    def reduce(self, *vectors: Tensor) -> None:
        """Sum each vector over ranks, in place at home; other ranks' vectors keep their values."""
        self._begin()
        for vector in vectors:
            flat = vector.view(-1).numpy()
            for start in range(0, len(flat), self.limit):
                part = flat[start : start + self.limit]
                if self.is_home:
                    self.mpi.Reduce(MPI.IN_PLACE, part, op=MPI.SUM, root=0)
                else:
                    self.mpi.Reduce(part, None, op=MPI.SUM, root=0)

    def settle(self, error: Refused | None) -> None:
        """Raise an error of any rank on all: the lowest rank with one raises its own, the others raise `Elsewhere`."""
        self._begin()
        mine = np.array([self.size if error is None else self.me, 0 if error is None else error.code], dtype=np.int64)
        outcomes = np.empty((self.size, 2), dtype=np.int64)
        self.mpi.Allgather(mine, outcomes)
        self.owes = False
        first = outcomes[outcomes[:, 0].argmin()]
        if first[0] == self.size:
            return
        if error is not None and first[0] == self.me:
            error.tells = True
            raise error
        elsewhere = Elsewhere(f"refused by rank {first[0]}, which tells why")
        elsewhere.code, elsewhere.tells = int(first[1]), False
        raise elsewhere

    def fail(self, error: Refused) -> NoReturn:
        """Tell the error and end every rank now: the others wait in a collective, out of this rank's reach."""
        if isinstance(error, Elsewhere) or self.size == 1:
            raise error
        tell.end(str(error), error.code)
        abort(self, error.code)
        raise error

    def _begin(self) -> None:
        self.owes = self.size > 1
        self._wait()

    def _wait(self) -> None:
        if not self.place.crowded:
            return
        request = self.mpi.Ibarrier()
        began = time.perf_counter()
        while not request.Test():
            # A tenth of the wait so far: a short wait is noticed at once, a long one costs no core.
            time.sleep(min(1e-3, max(2e-5, (time.perf_counter() - began) / 10)))
