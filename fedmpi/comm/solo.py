"""One rank alone: every collective is already done."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import torch
from torch import Tensor

from fedmpi.comm.topology import NodePlace, mask, share
from fedmpi.cores import threads
from fedmpi.flow import Comm, Pending, Refused


class Done:
    """A collective that is through."""

    def wait(self) -> None:
        pass


class Solo:
    """A communicator of one rank, which needs no MPI; `me` is its birth id among others."""

    size = 1
    epoch = 0
    is_home = True
    is_scribe = True

    def __init__(self, me: int = 0) -> None:
        self.me = me
        self.alive: tuple[int, ...] = (me,)
        self.home: tuple[int, ...] = (me,)
        self.place = NodePlace(threads=share([mask()], mask(), threads()))
        self.library = "none (one process)"

    @property
    def within(self) -> Comm:
        """The ranks that serve one client together: this one."""
        return self

    @property
    def across(self) -> Comm:
        """One rank of each group that serves a client together: this one."""
        return self

    def buffer(self, size: int, dtype: torch.dtype) -> Tensor:
        return torch.zeros(size, dtype=dtype)

    def broadcast(self, vector: Tensor, root: int = 0) -> None:
        pass

    def reduce(self, *vectors: Tensor, root: int = 0, into: Sequence[Tensor] | None = None) -> None:
        for vector, landed in zip(vectors, into or vectors, strict=True):
            if landed is not vector:
                landed.copy_(vector)

    def start_broadcast(self, vector: Tensor, root: int = 0) -> Pending:
        return Done()

    def start_reduce(self, *vectors: Tensor, root: int = 0, into: Sequence[Tensor] | None = None) -> Pending:
        self.reduce(*vectors, root=root, into=into)
        return Done()

    def largest(self, vector: Tensor) -> None:
        pass

    def total(self, vector: Tensor) -> None:
        pass

    def gather(self, vector: Tensor) -> Tensor:
        return vector.reshape(1, -1).clone()

    def exchange(self, parts: Sequence[Tensor]) -> list[Tensor]:
        if len(parts) != 1:
            raise ValueError(f"exchange: {len(parts)} parts given for 1 rank")
        return [parts[0].clone()]

    def agree(self, ok: bool) -> bool:
        return ok

    def group(self, ranks: Sequence[int]) -> Comm | None:
        if [*ranks] != [self.me]:
            raise ValueError(f"group: {[*ranks]} given; the ranks are {[self.me]}")
        return self

    def settle(self, error: Refused | None) -> None:
        if error is not None:
            raise error

    def fail(self, error: Refused) -> NoReturn:
        raise error
