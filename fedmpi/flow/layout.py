"""The places on the wire."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """The places on the wire: `up` planes of `size` values each, then the sums.

    `trained` is the slice of a plane changed by training; behind it lie floating buffers, which are averaged but left
    alone by clips, norms and optimisers.  `weights` names the weighting of each plane, then of each sum: "examples",
    "uniform" or "none" (added as it is, never divided).
    """

    size: int
    trained: slice
    dtype: torch.dtype
    up: int = 1
    weights: tuple[str, ...] = ("examples",)
    sums: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        """The number of values on the wire: the planes, Σw, Σ1, then the strategy's own sums."""
        return self.up * self.size + 2 + len(self.sums)

    def planes(self, wire: Tensor) -> Tensor:
        """Return the planes of a wire `(..., width)` as a view `(..., up, size)`."""
        return wire[..., : self.up * self.size].view(*wire.shape[:-1], self.up, self.size)

    def tail(self, wire: Tensor) -> Tensor:
        """Return the scalars of a wire `(..., width)` as a view `(..., 2 + sums)`: Σw, Σ1, then the strategy's."""
        return wire[..., self.up * self.size :]
