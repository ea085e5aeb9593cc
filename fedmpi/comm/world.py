"""Ranks over MPI: typed buffers through collectives, never a pickle, a message or a polling server."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np
import torch
from mpi4py import MPI
from torch import Tensor

from fedmpi import tell
from fedmpi.comm.leaving import abort, watch
from fedmpi.comm.requests import Requests, sleep_until
from fedmpi.comm.solo import Solo
from fedmpi.comm.topology import NodePlace, mask, share, together
from fedmpi.cores import threads
from fedmpi.flow import Comm, Pending, Refused

LIMIT = 2**30  # elements a collective carries at once: counts stay within an int on every MPI
PIECE = 2**22  # bytes summed at once: they stay in cache from rank to rank, and MPI needs little memory of its own


class Elsewhere(Refused):
    """A refusal by another rank, told there; this rank only leaves."""


class World:
    """A communicator over MPI; `me` is the rank's birth id, 0 the server.

    Where ranks outnumber cores, a waiting rank would burn a core needed by another (MPI's waiting calls spin): it then
    polls a barrier with growing sleeps, and only then makes the blocking call, which no longer waits.  The choice is
    made once for the whole communicator, since a non-blocking call on one rank never matches a blocking one on another.
    """

    epoch = 0
    waited: Callable[[float, float], None] | None = None  # told the begin and end of each wait for the other ranks

    def __init__(self, comm: MPI.Comm, limit: int = LIMIT, part: bool = False) -> None:
        self.mpi = comm.Dup()
        self.me, self.size, self.limit = self.mpi.Get_rank(), self.mpi.Get_size(), limit
        self.alive: tuple[int, ...] = tuple(range(self.size))
        self.home: tuple[int, ...] = (0,)
        self.library = MPI.Get_library_version().split("\n")[0].strip("\x00 ")
        node = self.mpi.Split_type(MPI.COMM_TYPE_SHARED)
        masks = node.allgather(mask())
        local_size = node.Get_size()
        crowded = self.mpi.allreduce(local_size > together(masks), op=MPI.LOR)
        bound = len(set(masks)) > 1
        self.place = NodePlace(node.Get_rank(), local_size, share(masks, mask(), threads()), crowded, bound)
        node.Free()
        self.owes = self.size > 1  # others wait for this rank: until all have settled
        if self.size > 1 and not part:  # the whole is watched already
            watch(self)

    @property
    def is_home(self) -> bool:
        return self.me in self.home

    @property
    def is_scribe(self) -> bool:
        return self.me == self.home[0]

    @property
    def within(self) -> Comm:
        """The ranks that serve one client together: this one alone."""
        return Solo(self.me)

    @property
    def across(self) -> Comm:
        """One rank of each group that serves a client together: all of them."""
        return self

    def buffer(self, size: int, dtype: torch.dtype) -> Tensor:
        return torch.zeros(size, dtype=dtype)

    def broadcast(self, vector: Tensor, root: int = 0) -> None:
        """Copy the `vector` of rank `root` to every rank, in place."""
        self._begin()
        for part in self._parts(vector):
            self.mpi.Bcast(part, root=self._at(root))

    def reduce(self, *vectors: Tensor, root: int = 0, into: Sequence[Tensor] | None = None) -> None:
        """Sum each vector over ranks on rank `root`, in place or `into` others; other ranks' vectors stay."""
        self._begin()
        for sent, landed in self._pairs(vectors, root, into, PIECE):
            self.mpi.Reduce(sent, landed, op=MPI.SUM, root=self._at(root))

    def start_broadcast(self, vector: Tensor, root: int = 0) -> Pending:
        self.owes = self.size > 1
        started = [self.mpi.Ibcast(part, root=self._at(root)) for part in self._parts(vector)]
        return Requests(started, self.place.crowded)

    def start_reduce(self, *vectors: Tensor, root: int = 0, into: Sequence[Tensor] | None = None) -> Pending:
        self.owes = self.size > 1
        started = [
            self.mpi.Ireduce(sent, landed, op=MPI.SUM, root=self._at(root))
            for sent, landed in self._pairs(vectors, root, into)
        ]
        return Requests(started, self.place.crowded)

    def largest(self, vector: Tensor) -> None:
        """Lay the largest value over ranks in each place; MPI.MAX may drop a NaN, so these are told apart."""
        self._begin()
        lost = vector.isnan().to(torch.uint8)
        for part in self._parts(vector):
            self.mpi.Allreduce(MPI.IN_PLACE, part, op=MPI.MAX)
        if not vector.is_floating_point():
            return
        for part in self._parts(lost):
            self.mpi.Allreduce(MPI.IN_PLACE, part, op=MPI.MAX)
        vector.masked_fill_(lost.bool(), float("nan"))

    def total(self, vector: Tensor) -> None:
        self._begin()
        for part in self._parts(vector):
            self.mpi.Allreduce(MPI.IN_PLACE, part, op=MPI.SUM)

    def gather(self, vector: Tensor) -> Tensor:
        self._begin()
        rows = torch.zeros(self.size, vector.numel(), dtype=vector.dtype)
        step = max(1, self.limit // self.size)
        for start in range(0, vector.numel(), step):
            part = vector.reshape(-1)[start : start + step].contiguous()
            landed = torch.zeros(self.size, part.numel(), dtype=vector.dtype)
            self.mpi.Allgather(part.numpy(), landed.numpy())
            rows[:, start : start + step] = landed
        return rows

    def exchange(self, parts: Sequence[Tensor]) -> list[Tensor]:
        if len(parts) != self.size:
            raise ValueError(f"exchange: {len(parts)} parts given for {self.size} ranks")
        self._begin()
        sizes = np.array([part.numel() for part in parts], dtype=np.int64)
        coming = np.empty_like(sizes)
        self.mpi.Alltoall(sizes, coming)
        landed = [torch.zeros(int(size), dtype=parts[0].dtype) for size in coming]
        order = [(self._rank + step) % self.size for step in range(self.size)]
        for to, come in zip(order, [(self._rank - step) % self.size for step in range(self.size)], strict=True):
            # Pair by pair, so that no count and no copy grows with the number of ranks.
            here, there = self._parts(parts[to].contiguous()), self._parts(landed[come])
            pending = [self.mpi.Irecv(part, source=come) for part in there]
            pending += [self.mpi.Isend(part, dest=to) for part in here]
            Requests(pending, self.place.crowded).wait()
        return landed

    def agree(self, ok: bool) -> bool:
        self._begin()
        everyone = np.array([ok], dtype=np.int32)
        self.mpi.Allreduce(MPI.IN_PLACE, everyone, op=MPI.MIN)
        return bool(everyone[0])

    def group(self, ranks: Sequence[int]) -> Comm | None:
        self._begin()
        members = sorted(set(ranks))
        if not members or not set(members) <= set(self.alive):
            raise ValueError(f"group: {[*ranks]} given; the ranks are {[*self.alive]}")
        chosen = self.mpi.Get_group().Incl([self._at(rank) for rank in members])
        made = self.mpi.Create(chosen)
        if made == MPI.COMM_NULL:
            return None
        some = World(made, self.limit, part=True)
        made.Free()
        some.me, some.alive = self.me, tuple(members)
        some.home = tuple(rank for rank in self.home if rank in members) or (members[0],)
        return some

    def settle(self, error: Refused | None) -> None:
        """Raise an error of any rank on all: the lowest rank with one raises its own, the others raise `Elsewhere`."""
        fine = self.agree(error is None)
        self.owes = False
        if fine:
            return
        place, code = (self.size, 0) if error is None else (self._rank, error.code)
        mine = np.array([place, code], dtype=np.int64)
        outcomes = np.empty((self.size, 2), dtype=np.int64)
        self.mpi.Allgather(mine, outcomes)
        first = outcomes[outcomes[:, 0].argmin()]
        if error is not None and first[0] == self._rank:
            error.tells = True
            raise error
        elsewhere = Elsewhere(f"refused by rank {self.alive[first[0]]}, which tells why")
        elsewhere.code, elsewhere.tells = int(first[1]), False
        raise elsewhere

    def fail(self, error: Refused) -> NoReturn:
        """Tell the error and end every rank now: the others wait in a collective, out of this rank's reach."""
        if isinstance(error, Elsewhere) or self.size == 1:
            raise error
        tell.end(str(error), error.code)
        abort(self, error.code)
        raise error

    @property
    def _rank(self) -> int:
        """This rank's number in MPI's own terms."""
        return self._at(self.me)

    def _at(self, rank: int) -> int:
        """Return MPI's number of a birth id."""
        return self.alive.index(rank)

    def _parts(self, vector: Tensor, most: int | None = None) -> list[Any]:
        """Return a vector in pieces that a collective carries at once, as views, of at most so many bytes."""
        flat = vector.view(-1).numpy()
        step = self.limit if most is None else min(self.limit, most // vector.itemsize)
        return [flat[start : start + step] for start in range(0, len(flat), step)]

    def _pairs(
        self, vectors: Sequence[Tensor], root: int, into: Sequence[Tensor] | None, most: int | None = None
    ) -> list[tuple[Any, Any]]:
        """Return the send and receive buffers of a reduction, piece by piece."""
        here = self.me == root
        pairs: list[tuple[Any, Any]] = []
        for place, vector in enumerate(vectors):
            parts = self._parts(vector, most)
            if not here:
                pairs += [(part, None) for part in parts]
            elif into is None or into[place] is vector:  # MPI forbids one buffer for both
                pairs += [(MPI.IN_PLACE, part) for part in parts]
            else:
                pairs += zip(parts, self._parts(into[place], most), strict=True)
        return pairs

    def _begin(self) -> None:
        self.owes = self.size > 1
        if self.place.crowded:
            began = time.perf_counter()
            sleep_until(self.mpi.Ibarrier().Test)
            if self.waited is not None:
                self.waited(began, time.perf_counter())
