"""Bound the L2 norm of an update, before its weight.

The same bound as in McMahan, Ramage, Talwar, Zhang 2018, "Learning Differentially Private Recurrent Language Models",
section 3: flat clipping.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from fedmpi.aggregation.stages.stage import Stage
from fedmpi.flow import Passage
from fedmpi.job import Positive


class Clip(Stage):
    """Clipping: scale an update down to an L2 norm of at most `bound` (McMahan et al. 2018).

    The norm is over the trained values of all planes.
    """

    counters: ClassVar[tuple[str, ...]] = ("clipped",)

    def __init__(self, bound: Positive) -> None:
        self.bound: float = bound
        self.clipped = 0

    def encode(self, wire: Tensor, passage: Passage) -> Tensor:
        norm = passage.norm(wire)
        self.clipped += int((norm > self.bound).sum())
        factor = (self.bound / norm).clamp(max=1.0)
        passage.layout.planes(wire)[..., passage.layout.trained].mul_(factor[..., None, None])
        return wire

    def count(self) -> tuple[int, ...]:
        clipped, self.clipped = self.clipped, 0
        return (clipped,)
