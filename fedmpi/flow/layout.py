"""The places on the wire."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

TOTALS = ("weight", "clients")  # Σw and Σ1


@dataclass(frozen=True)
class Layout:
    """The places on the wire: `up` planes of `size` values each, then the tail of scalars.

    `trained` is the slice of a plane changed by training; behind it lie floating buffers, which are averaged but left
    alone by clips, norms and optimisers.  The tail holds Σw and Σ1, the strategy's `sums`, and the stages' `notes`.
    `weights` names the weighting of each plane, each sum and each note: "examples", "uniform" or "none" (added as it
    is, never divided).  Where the total of each weighting is `fixed`, it is divided by that, and Σw and Σ1 stay off
    the wire.
    """

    size: int
    trained: slice
    dtype: torch.dtype
    up: int = 1
    weights: tuple[str, ...] = ("examples",)
    sums: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    fixed: Mapping[str, float] = field(default_factory=dict)

    @cached_property
    def scalars(self) -> tuple[str, ...]:
        """The names in the tail, in their order."""
        return (*(() if self.fixed else TOTALS), *self.sums, *self.notes)

    @cached_property
    def width(self) -> int:
        """The number of values on the wire: the planes and the tail."""
        return self.up * self.size + len(self.scalars)

    def planes(self, wire: Tensor) -> Tensor:
        """Return the planes of a wire `(..., width)` as a view `(..., up, size)`."""
        return wire[..., : self.up * self.size].view(*wire.shape[:-1], self.up, self.size)

    def tail(self, wire: Tensor) -> Tensor:
        """Return the scalars of a wire `(..., width)` as a view `(..., scalars)`."""
        return wire[..., self.up * self.size :]

    def scalar(self, wire: Tensor, name: str) -> Tensor:
        """Return one of the `scalars` of a wire `(..., width)` as a view `(...,)`; ValueError for an unknown name."""
        return wire[..., self.up * self.size + self.scalars.index(name)]

    def weighed(self, wire: Tensor) -> Iterator[tuple[Tensor, str]]:
        """Yield views of a wire `(..., width)`, planes and then sums and notes, with the weighting of each."""
        planes, first = self.planes(wire), len(self.scalars) - len(self.sums) - len(self.notes)
        for place, weighting in enumerate(self.weights):
            if place < self.up:
                yield planes[..., place, :], weighting
            else:
                yield self.tail(wire)[..., first + place - self.up], weighting
