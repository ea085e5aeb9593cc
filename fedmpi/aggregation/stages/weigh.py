"""Multiply updates by their clients' weights; divide the sum by the total weight."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedmpi.aggregation.stages.stage import Stage
from fedmpi.flow import TOTALS, Passage


class Weigh(Stage):
    """Weighing by w = min(examples / cap, 1) or 1, each plane and sum as the layout says; weights ride in the tail.

    A client drawn twice weighs twice; but a plane or sum without weighting, such as a client's own change of state, is
    there once.

    It stands where the job's pipeline needs it: behind the stages of values, before those of integers.  Decoding
    divides each plane and sum by the total of its own weighting, the observed one or the layout's fixed one; where the
    total is 0, nothing came and the mean is 0.
    """

    def __init__(self, cap: int) -> None:
        self.cap = cap

    def encode(self, wire: Tensor, passage: Passage) -> Tensor:
        layout, rows = passage.layout, wire.view(-1, wire.shape[-1])
        weights, times = passage.times * np.minimum(passage.examples / self.cap, 1.0), passage.times
        factors = {"examples": _factor(weights, rows), "uniform": _factor(times, rows)}
        if not layout.fixed:
            for name, factor in zip(TOTALS, factors.values(), strict=True):
                scalars = layout.scalar(rows, name)
                scalars.copy_(factor) if isinstance(factor, Tensor) else scalars.fill_(factor)
        for part, weighting in layout.weighed(rows):
            factor = factors.get(weighting, 1.0)
            if isinstance(factor, Tensor):
                part.mul_(factor.view(-1, *[1] * (part.dim() - 1)))
            elif factor != 1:
                part.mul_(factor)
        return wire

    def add(self, rows: Tensor, passage: Passage, sum: Tensor) -> None:
        """Add rows `(K, width)`, weighed, to a sum `(width,)`: `encode` and an addition in one pass over the planes."""
        layout = passage.layout
        planes, totals = layout.planes(rows), layout.planes(sum)
        factors = {"examples": passage.times * np.minimum(passage.examples / self.cap, 1.0), "uniform": passage.times}
        ones = np.ones(len(rows))
        weights = [factors.get(weighting, ones).tolist() for weighting in layout.weights[: layout.up]]
        scalars = layout.tail(rows)
        if layout.scalars:
            tail = replace(layout, size=0, trained=slice(0, 0))
            self.encode(scalars, replace(passage, layout=tail))
        for row in range(len(rows)):
            for place, weight in enumerate(weights):
                totals[place].add_(planes[row, place], alpha=weight[row])
            layout.tail(sum).add_(scalars[row])

    def decode(self, wire: Tensor, passage: Passage) -> Tensor:
        layout = passage.layout
        totals = dict(layout.fixed) or {
            "examples": float(layout.scalar(wire, "weight")),
            "uniform": float(layout.scalar(wire, "clients")),
        }
        for part, weighting in layout.weighed(wire):
            if weighting in totals:
                total = totals[weighting]
                part.div_(total) if total > 0 else part.zero_()
        return wire


def _factor(numbers: NDArray[Any], rows: Tensor) -> Tensor | float:
    """Return the factors of rows: of one alone a number, which costs less than a tensor."""
    if len(numbers) == 1:
        return float(numbers[0])
    return torch.from_numpy(numbers.astype(np.float64)).to(rows.device, rows.dtype)
