"""The seam of all aggregation: one change to how an update travels."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from fedmpi.flow import Passage


class Stage:
    """One change to an update's wire `(width,)`, or to a batch of them `(K, width)`.

    `encode` is applied in the job's order on the way out, at each client (`acts_on` "client"), to a rank's sum ("rank")
    or a site's ("domain"); `decode` in reverse order on the way in, at home.  Both may work in place, and return the
    result.  `rides` says whether the results can be summed ("reduce"), lie side by side ("rows"), or come alone
    ("deliver").  `place` says whether a stage works on values before their weights ("value"), on weighted ones
    ("weighed") or on integers ("integer"); neither `place` nor `acts_on` goes back along a pipeline.
    An `elementwise` stage treats every value alike, so a path may hand it one piece after another.

    A stage on a rank's sum sees its planes `(up * size,)` alone, once in a crossing, and is of weighted values or
    integers.  It may change their type and size, which `wire` then says; the tail travels apart, as it is.
    """

    acts_on: ClassVar[str] = "client"
    rides: ClassVar[frozenset[str]] = frozenset({"reduce", "rows", "deliver"})
    place: ClassVar[str] = "value"
    exact: ClassVar[bool] = False  # a sum of its results has the same bits in every order
    bound: float | None = None  # the largest L2 norm of an update after it; None: any
    elementwise: ClassVar[bool] = False
    counters: ClassVar[tuple[str, ...]] = ()  # what `count` counts, summed over ranks into the journal

    def wire(self, size: int, dtype: torch.dtype) -> tuple[int, torch.dtype]:
        """Return the size and type of the buffer after this stage, for one of `size` values of `dtype` before it."""
        return size, dtype

    def encode(self, wire: Tensor, passage: Passage) -> Tensor:
        return wire

    def decode(self, wire: Tensor, passage: Passage) -> Tensor:
        return wire

    def count(self) -> tuple[int, ...]:
        """Return the counters since the last call, in their order."""
        return ()

    def ledger(self) -> dict[str, Any]:
        """Return home's entries for this crossing's journal line, by name."""
        return {}

    def error(self, clients: int) -> float:
        """Return the largest error of each value in a sum of `clients` wires: 0 for an exact stage."""
        return 0.0
