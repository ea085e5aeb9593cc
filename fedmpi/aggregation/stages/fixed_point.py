"""Sums in integers, independent of the order of summing: the same bits at any number of ranks."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from fedmpi.aggregation.stages.stage import Stage
from fedmpi.flow import Passage, Unfit
from fedmpi.job import JobError

BLOCK = 2**18  # values decoded at once: the float64 copy stays in cache


class FixedPoint(Stage):
    """Fixed-point integers: every value of the wire is rounded to a multiple of 2^-`fraction`.

    Weights and sums are rounded too.  `bits` is the width of an integer, 32 or 64.  In 64 bits `fraction` is 32 plus
    the bits of `cap` where not given, so a small client's weighted update keeps its digits.  In 32 bits it is the rest
    of the headroom: clip's bound times the clients of a round must fit.  A value that is not finite, or too large for
    the sum of a full round, is stopped before the cast, which would make a number of it.
    """

    place: ClassVar[str] = "integer"
    elementwise: ClassVar[bool] = True

    def __init__(
        self,
        cap: int,
        clients: int,
        clipped: float | None,
        bits: Literal[32, 64] = 64,
        fraction: Annotated[int, Field(ge=1, le=60)] | None = None,
    ) -> None:
        reach = 1.0 if clipped is None else max(clipped, 1.0)  # a weight of 1 must fit beside the update
        room = bits - 1 - math.ceil(math.log2(clients + 1))  # bits that one client's value may fill
        if bits == 32 and clipped is None:
            raise JobError("aggregation.stages: fixed-point in 32 bits needs a clip stage before it, to know its range")
        if fraction is not None:
            self.fraction = fraction
        elif bits == 32:
            self.fraction = room - 1 - math.ceil(math.log2(reach))
        else:
            spare = max(8, 1 + math.ceil(math.log2(reach)))  # bits before the point: no clip bounds buffers and sums
            self.fraction = min(32 + math.ceil(math.log2(cap)), room - spare)
        if self.fraction < 8 or math.ldexp(reach, self.fraction) >= math.ldexp(1.0, room):
            raise JobError(
                f"aggregation.stages: fixed-point: {bits} bits cannot hold the sum of {clients} clients"
                f"{'' if clipped is None else f' clipped at {clipped:g}'}"
                f"{'' if fraction is None else f' with {fraction} fraction bits'}; "
                f"use {'' if bits == 64 else 'bits = 64, '}a smaller bound, less fraction or fewer clients a round"
            )
        self.scale = math.ldexp(1.0, self.fraction)
        self.limit = math.ldexp(1.0, room)
        self.dtype = torch.int32 if bits == 32 else torch.int64

    def wire(self, size: int, dtype: torch.dtype) -> tuple[int, torch.dtype]:
        self.decoded = dtype
        return size, self.dtype

    def encode(self, wire: Tensor, passage: Passage) -> Tensor:
        scaled = wire.double().mul(self.scale).round_()  # never in place: a float64 wire is its own double
        largest = scaled.abs().max()
        if not largest < self.limit:
            raise Unfit(1 if not torch.isfinite(largest) else 2, int((~(scaled.abs() < self.limit)).int().argmax()))
        return scaled.to(self.dtype)

    def decode(self, wire: Tensor, passage: Passage) -> Tensor:
        decoded = torch.empty(wire.shape, dtype=self.decoded, device=wire.device)
        for start in range(0, wire.shape[-1], BLOCK):
            part = wire[..., start : start + BLOCK]
            decoded[..., start : start + BLOCK] = part.double().div_(self.scale)
        return decoded

    def error(self, clients: int) -> float:
        return 0.5 * clients / self.scale
