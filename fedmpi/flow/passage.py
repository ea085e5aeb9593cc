"""One crossing of the updates, and the reasons to keep an update out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fedmpi.flow import norms
from fedmpi.flow.layout import Layout

Clients = NDArray[np.int64]  # indices of clients in their shard set
Places = NDArray[np.int64]  # of clients in a cohort


class Unfit(Exception):
    """The refusal of one update, which must not enter the sum; `reason` is a key of REASONS, a number for the tally.

    `at` is the place on the wire of the first value at fault, by which home names its tensor.
    """

    def __init__(self, reason: int, at: int = 0) -> None:
        super().__init__(REASONS[reason])
        self.reason, self.at = reason, at


REASONS = {
    1: "is not finite: its training diverged (a smaller local.lr or a local.clip helps)",
    2: "is too large for the fixed-point stage (put clip before it, or give it fewer fraction bits; clip leaves "
    "buffers such as BatchNorm's alone)",
}


@dataclass(frozen=True, eq=False)
class Passage:
    """One crossing of the updates, for paths and stages, which may know no more.

    It is of the whole cohort, or of those clients whose rows are under way: `clients`, `examples` and `times` are then
    theirs.  All of it but `clients`, `examples`, `times`, `offset`, `memory` is the same on every rank.
    """

    round: int
    layout: Layout
    clients: Clients  # (K,) ascending in a cohort
    examples: NDArray[np.int64]  # (K,) of each client
    times: NDArray[np.int64]  # (K,) the number of times that each was drawn
    crossing: int = 0  # the pass of the round, from 0
    attempt: int = 0  # the number of times that this crossing failed before
    epoch: int = 0  # the number of times that the ranks were regrouped
    launch: int = 1  # the number of this launch of the run
    members: tuple[int, ...] = (0,)  # the ranks alive, by birth id
    serving: tuple[int, ...] = (0,)  # those of them that serve clients
    offset: int = 0  # of a piece of the wire: the place of its first value
    memory: Mapping[str, Tensor] = field(default_factory=dict)  # (K, n) what the stages declared, for these clients
    agreed: Tensor | None = None  # (n,) float64: the largest over ranks of each of a stage's numbers

    def of(self, places: slice | Places, memory: Mapping[str, Tensor] | None = None) -> Passage:
        """Return the same crossing for some of its clients, by their places in it; a slice's memory is a view."""
        if memory is None:
            memory = {name: rows[places] for name, rows in self.memory.items()}
        return replace(
            self,
            clients=self.clients[places],
            examples=self.examples[places],
            times=self.times[places],
            memory=memory,
        )

    def piece(self, offset: int) -> Passage:
        """Return the same passage for a piece of the wire that begins at `offset`."""
        return replace(self, offset=offset) if offset else self

    def norm(self, wire: Tensor) -> Tensor:
        """Return the L2 norm `(...,)` of the trained values in a wire `(..., width)`, over all its planes."""
        return norms.norm(self.layout.planes(wire)[..., self.layout.trained], planes=True)
