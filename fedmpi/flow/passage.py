"""One crossing of the updates, and the reasons to keep an update out of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fedmpi.flow import norms
from fedmpi.flow.layout import Layout

Clients = NDArray[np.int64]  # indices of clients in their shard set


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


@dataclass(frozen=True)
class Passage:
    """One crossing of the updates, for stages, which may know no more."""

    round: int
    clients: Clients  # of the whole cohort, ascending
    layout: Layout
    attempt: int = 0
    client: int | None = None  # the client of the update being encoded; None for a sum
    examples: int = 0  # the client's
    times: int = 1  # the number of times it was drawn

    def of(self, client: int, examples: int, times: int = 1) -> Passage:
        """Return the same crossing, for the update of one client with so many examples, drawn so many times."""
        return replace(self, client=client, examples=examples, times=times)

    def norm(self, wire: Tensor) -> Tensor:
        """Return the L2 norm `(...,)` of the trained values in a wire `(..., width)`, over all its planes."""
        return norms.norm(self.layout.planes(wire)[..., self.layout.trained], planes=True)
