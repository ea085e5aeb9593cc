"""A communicator of threads: whole rounds without an MPI library."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from torch import Tensor

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
        self.place = NodePlace(local_rank=me, local_size=hub.size)
        self.traffic: list[str] = []

    def _exchange(self, what: Any) -> list[Any]:
        self.hub.said[self.me] = what
        self.hub.barrier.wait()
        said = list(self.hub.said)
        self.hub.barrier.wait()
        return said

    def broadcast(self, vector: Tensor, root: int = 0) -> None:
        self.traffic.append("broadcast")
        home = self._exchange(vector)[root]
        if self.me != root:
            vector.copy_(home)
        self.hub.barrier.wait()

    def reduce(self, *vectors: Tensor) -> None:
        self.traffic.append("reduce")
        everyone = self._exchange(vectors)
        if self.is_home:
            for place, vector in enumerate(vectors):
                for other in everyone[1:]:
                    vector.add_(other[place])
        self.hub.barrier.wait()

    def settle(self, error: Refused | None) -> None:
        self.traffic.append("settle")
        first = next((said for said in self._exchange(error) if said is not None), None)
        if first is not None:
            raise first if first is error else Refused("")

    def fail(self, error: Refused) -> None:
        self.hub.barrier.abort()
        raise error


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
