"""Multiply an update by its client's weight; divide the sum by the total weight."""

from __future__ import annotations

from torch import Tensor

from fedmpi.aggregation.stages.stage import Stage
from fedmpi.flow import Passage


class Weigh(Stage):
    """Weighing by w = min(examples / cap, 1) or 1, each plane and sum as the layout says; weights ride in the tail.

    A client drawn twice weighs twice; but a plane or sum without weighting, such as a client's own change of state, is
    there once.

    It stands where the job's pipeline needs it: behind the stages of values, before those of integers.  Decoding
    divides each plane and sum by the total of its own weighting; where the total is 0, nothing came and the mean is 0.
    """

    def __init__(self, cap: int) -> None:
        self.cap = cap

    def encode(self, wire: Tensor, passage: Passage) -> Tensor:
        times = passage.times
        weight = times * min(passage.examples / self.cap, 1.0)
        layout = passage.layout
        planes, tail = layout.planes(wire), layout.tail(wire)
        tail[..., 0], tail[..., 1] = weight, times
        factors = {"examples": weight, "uniform": times}
        for place, weighting in enumerate(layout.weights):
            factor = factors.get(weighting, 1)
            if factor != 1:
                (planes[..., place, :] if place < layout.up else tail[..., 2 + place - layout.up]).mul_(factor)
        return wire

    def decode(self, wire: Tensor, passage: Passage) -> Tensor:
        layout = passage.layout
        planes, tail = layout.planes(wire), layout.tail(wire)
        totals = {"examples": tail[0].clone(), "uniform": tail[1].clone()}
        for place, weighting in enumerate(layout.weights):
            part = planes[place] if place < layout.up else tail[2 + place - layout.up]
            if weighting in totals:
                total = totals[weighting]
                part.div_(total) if total > 0 else part.zero_()
        return wire
