"""One rank alone: every collective is already done."""

from __future__ import annotations

from typing import NoReturn

from torch import Tensor

from fedmpi.comm.topology import NodePlace, mask, share
from fedmpi.flow import Refused


class Solo:
    """A communicator of one rank, which needs no MPI."""

    me = 0
    size = 1
    is_home = True
    is_scribe = True

    def __init__(self) -> None:
        self.place = NodePlace(threads=share([mask()], mask()))
        self.library = "none (one process)"

    def broadcast(self, vector: Tensor, root: int = 0) -> None:
        pass

    def reduce(self, *vectors: Tensor) -> None:
        pass

    def settle(self, error: Refused | None) -> None:
        if error is not None:
            raise error

    def fail(self, error: Refused) -> NoReturn:
        raise error
