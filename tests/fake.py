"""A communicator of threads: whole rounds without an MPI library."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from fedmpi.comm import Solo
from fedmpi.comm.topology import NodePlace
from fedmpi.flow import Refused


class Hub:
    """What the threads of one launch share."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.barrier = threading.Barrier(size, timeout=60)
        self.said: list[Any] = [None] * size


class Fake:
    """One thread's end of a communicator; `traffic` lists what it was called for, in order."""

    library = "threads"

    def __init__(self, hub: Hub, me: int) -> None:
        self.hub, self.me, self.size = hub, me, hub.size
        self.is_home = self.is_scribe = me == 0
        self.alive, self.home, self.epoch = tuple(range(hub.size)), (0,), 0
        self.place = NodePlace(local_rank=me, local_size=hub.size)
        self.traffic: list[str] = []

    def _exchange(self, what: Any) -> list[Any]:
        self.hub.said[self.me] = what
        self.hub.barrier.wait()
        said = list(self.hub.said)
        self.hub.barrier.wait()
        return said

    @property
    def within(self) -> Any:
        return Solo(self.me)

    @property
    def across(self) -> Any:
        return self

    def buffer(self, size: int, dtype: torch.dtype) -> Tensor:
        return torch.zeros(size, dtype=dtype)

    def broadcast(self, vector: Tensor, root: int = 0) -> None:
        self.traffic.append("broadcast")
        home = self._exchange(vector)[root]
        if self.me != root:
            vector.copy_(home)
        self.hub.barrier.wait()

    def reduce(self, *vectors: Tensor, root: int = 0, into: Sequence[Tensor] | None = None) -> None:
        self.traffic.append("reduce")
        everyone = self._exchange(vectors)
        if self.me == root:
            for place, vector in enumerate(vectors):
                total = vector.clone()
                for rank, other in enumerate(everyone):
                    if rank != root:
                        total.add_(other[place])
                (into[place] if into else vector).copy_(total)
        self.hub.barrier.wait()

    def start_broadcast(self, vector: Tensor, root: int = 0) -> Any:
        return Started(self, "broadcast", lambda: self.broadcast(vector, root))

    def start_reduce(self, *vectors: Tensor, root: int = 0, into: Sequence[Tensor] | None = None) -> Any:
        return Started(self, "reduce", lambda: self.reduce(*vectors, root=root, into=into))

    def largest(self, vector: Tensor) -> None:
        self.traffic.append("largest")
        everyone = self._exchange(vector.clone())
        for other in everyone:
            torch.maximum(vector, other, out=vector)

    def total(self, vector: Tensor) -> None:
        self.traffic.append("total")
        vector.copy_(sum(self._exchange(vector.clone())))

    def gather(self, vector: Tensor) -> Tensor:
        self.traffic.append("gather")
        return torch.stack(self._exchange(vector.clone()))

    def exchange(self, parts: Sequence[Tensor]) -> list[Tensor]:
        if len(parts) != self.size:
            raise ValueError(f"exchange: {len(parts)} parts given for {self.size} ranks")
        self.traffic.append("exchange")
        return [sent[self.me].clone() for sent in self._exchange(list(parts))]

    def agree(self, ok: bool) -> bool:
        self.traffic.append("agree")
        return all(self._exchange(ok))

    def group(self, ranks: Sequence[int]) -> Any:
        members = sorted(set(ranks))
        if not members or not set(members) <= set(self.alive):
            raise ValueError(f"group: {[*ranks]} given; the ranks are {[*self.alive]}")
        self.traffic.append("group")
        hub = self._exchange(Hub(len(members)))[members[0]]
        if self.me not in members:
            return None
        some = Fake(hub, members.index(self.me))
        return Part(some, self.me, tuple(members), tuple(rank for rank in self.home if rank in members))

    def settle(self, error: Refused | None) -> None:
        self.traffic.append("settle")
        first = next((said for said in self._exchange(error) if said is not None), None)
        if first is not None:
            raise first if first is error else Refused("")

    def fail(self, error: Refused) -> None:
        self.hub.barrier.abort()
        raise error


class Started:
    """A collective that a thread began: it comes to the others when it waits for it."""

    def __init__(self, comm: Fake, what: str, work: Callable[[], None]) -> None:
        comm.traffic.append(f"start {what}")
        self.work: Callable[[], None] | None = work

    def wait(self) -> None:
        work, self.work = self.work, None
        if work is not None:
            work()


class Part:
    """A group of threads under their birth ids."""

    def __init__(self, some: Fake, me: int, alive: tuple[int, ...], home: tuple[int, ...]) -> None:
        self.some, self.me, self.alive, self.home = some, me, alive, home or alive[:1]
        self.is_home, self.is_scribe = me in self.home, me == self.home[0]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.some, name)

    def broadcast(self, vector: Tensor, root: int = 0) -> None:
        self.some.broadcast(vector, self.alive.index(root))

    def reduce(self, *vectors: Tensor, root: int = 0, into: Sequence[Tensor] | None = None) -> None:
        self.some.reduce(*vectors, root=self.alive.index(root), into=into)


def launch(size: int, work: Callable[[Fake], Any]) -> list[Any]:
    """`work(comm)` on each of `size` ranks; their results, or the first rank's own error."""
    hub = Hub(size)

    def rank(me: int) -> Any:
        try:
            return work(Fake(hub, me))
        except Refused:
            raise  # settled: every rank leaves by itself
        except BaseException:
            hub.barrier.abort()
            raise

    with ThreadPoolExecutor(size) as pool:
        futures = [pool.submit(rank, me) for me in range(size)]
    errors = [future.exception() for future in futures if future.exception() is not None]
    own = [error for error in errors if not isinstance(error, threading.BrokenBarrierError) and str(error)]
    if errors:
        raise (own or errors)[0]
    return [future.result() for future in futures]
