"""How updates become one: encoded, summed on the rank, reduced over ranks, decoded at home."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fedmpi.aggregation.stages import Stage
from fedmpi.flow import Comm, Layout, Passage, Unfit
from fedmpi.job import JobError

BLOCK = 2**17  # values that pass through the elementwise stages and into the sum at once: they stay in cache


class ReducePath:
    """A path of one weighted `Reduce` a round.

    `begin` empties this rank's wire, `add` enters a client's update, `collect` makes the sum.  A rank without a client
    this round sends zeros.  The encoded wire stays until the next `begin`, so a crossing could be made again from the
    same words.  On a GPU sums are made there and staged through `host`, the wire itself where it lies on the host
    (`stage` forces the copy, for tests without a GPU).
    """

    def __init__(
        self, comm: Comm, stages: Sequence[Stage], layout: Layout, device: torch.device, stage: bool = False
    ) -> None:
        self.comm, self.stages, self.layout = comm, list(stages), layout
        each = [stage for stage in stages if stage.acts_on == "client"]
        cut = len(each)
        while cut and each[cut - 1].elementwise:
            cut -= 1
        self.whole, self.elementwise = each[:cut], each[cut:]
        size, dtype = layout.width, layout.dtype
        for each_stage in stages:
            size, dtype = each_stage.wire(size, dtype)
            if not dtype.is_floating_point and each_stage.place != "integer" and each_stage.acts_on == "client":
                # It would stand before the weighing, which needs values.
                raise JobError(
                    f"aggregation.stages: {type(each_stage).__name__} makes {_words(size, dtype)}; it should say so "
                    f"with place = 'integer'"
                )
        self.wire = torch.zeros(size, dtype=dtype, device=device)
        self.host = self.wire
        if stage or device.type != "cpu":
            self.host = torch.zeros(size, dtype=dtype, pin_memory=device.type == "cuda")

    @property
    def bytes(self) -> int:
        """Bytes of a rank's wire."""
        return self.wire.numel() * self.wire.itemsize

    def begin(self) -> None:
        self.wire.zero_()

    def add(self, wire: Tensor, passage: Passage) -> None:
        """Encode one client's wire `(width,)`, whose memory is used up, and enter it into this rank's sum.

        Raises Unfit, with nothing entered, where the update is not finite or would not fit.
        """
        if not torch.isfinite(wire.sum()):
            raise Unfit(1, first(~torch.isfinite(wire)))
        for stage in self.whole:
            wire = stage.encode(wire, passage)
        if not self.elementwise:
            self.wire.add_(self._fitting(wire, self.wire))
            return
        parts = torch.split(wire, BLOCK)
        try:
            for place, part in enumerate(parts):
                for stage in self.elementwise:
                    part = stage.encode(part, passage)
                into = self.wire[place * BLOCK : (place + 1) * BLOCK]
                into.add_(self._fitting(part, into))
        except Unfit as unfit:
            unfit.at += place * BLOCK
            for earlier, part in enumerate(parts[:place]):  # integers: taking them out again leaves no trace
                for stage in self.elementwise:
                    part = stage.encode(part, passage)
                self.wire[earlier * BLOCK : earlier * BLOCK + len(part)].sub_(part)
            raise

    def _fitting(self, wire: Tensor, into: Tensor) -> Tensor:
        """Return an encoded update; JobError where its shape or type differs from its stages' `wire`."""
        if wire.shape != into.shape or wire.dtype != into.dtype:
            raise JobError(
                f"aggregation.stages: {', '.join(type(stage).__name__ for stage in self.stages)} made "
                f"{_words(wire.numel(), wire.dtype)} of an update, where `wire` says {_words(len(into), into.dtype)}"
            )
        return wire

    def collect(self, passage: Passage, tally: Tensor) -> tuple[Tensor, dict[str, float]] | None:
        """Reduce the wire, and beside it the tally, in place; return the mean planes `(up, size)` and the sums at home.

        The sums hold the strategy's, and `weight` and `clients`, the totals of both weightings.  Other ranks get None.
        """
        for stage in self.stages:
            if stage.acts_on == "rank":
                self.wire = stage.encode(self.wire, passage)
        if self.host is not self.wire:
            self.host.copy_(self.wire)
        self.comm.reduce(self.host, tally)
        if not self.comm.is_home:
            return None
        passage = replace(passage, client=None)
        wire = self.host
        for stage in reversed(self.stages):
            wire = stage.decode(wire, passage)
        names = ("weight", "clients", *self.layout.sums)
        return self.layout.planes(wire), dict(zip(names, self.layout.tail(wire).tolist(), strict=True))

    @property
    def names(self) -> tuple[str, ...]:
        """What the stages count, by name."""
        return tuple(name for stage in self.stages for name in stage.counters)

    def counters(self) -> dict[str, int]:
        """Return this rank's counters of all stages since the last call, by name."""
        return {
            name: number for stage in self.stages for name, number in zip(stage.counters, stage.count(), strict=True)
        }

    def ledgers(self) -> dict[str, Any]:
        """Return what stages tell of a crossing at home, each under its name; nothing of those with nothing to tell."""
        ledgers = {type(stage).__name__.lower(): stage.ledger() for stage in self.stages}
        return {name: ledger for name, ledger in ledgers.items() if ledger}


def _words(size: int, dtype: torch.dtype) -> str:
    return f"{size:,} values of {str(dtype)[6:]}"


def first(wrong: Tensor) -> int:
    """Return the first wrong place of `(width,)`; 0 where none is (a sum of finite numbers may overflow)."""
    return int(wrong.int().argmax())
