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

    `begin` empties this rank's sum, `add` enters a client's update, `collect` makes the sum of all.  A rank without a
    client this round sends zeros.

    `sum` has the type of the clients' stages.  What is sent is `host`: the sum itself, or a copy of it on the host
    where it lies on a GPU (`stage` forces the copy, for tests without a GPU), or the planes as the rank's stages made
    them.  Where these change the planes' type or size, the tail travels apart, as it is in the sum.

    What is sent is made once in a crossing and stays as it is until the next `begin`: a second `collect` sends the
    same words and the same tally, at home too.
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
        for each_stage in each:
            size, dtype = each_stage.wire(size, dtype)
            if not dtype.is_floating_point and each_stage.place != "integer":
                # It would stand before the weighing, which needs values.
                raise JobError(
                    f"aggregation.stages: {type(each_stage).__name__} makes {_words(size, dtype)}; it should say so "
                    f"with place = 'integer'"
                )
        self.sum = torch.zeros(size, dtype=dtype, device=device)
        self.ranked = [stage for stage in stages if stage.acts_on == "rank"]
        self.cut = layout.up * layout.size  # where the tail begins, in the sum
        if self.ranked and size != layout.width:
            raise JobError(
                f"aggregation.stages: {type(self.ranked[0]).__name__} acts on a rank's sum, whose planes it cannot "
                f"tell from the tail: the stages before it make {size:,} values of {layout.width:,}"
            )
        size, dtype = (self.cut, dtype) if self.ranked else (size, dtype)
        for each_stage in self.ranked:
            size, dtype = each_stage.wire(size, dtype)
        self.host, self.tail = self.sum, torch.zeros(0, dtype=self.sum.dtype)
        if stage or device.type != "cpu" or self.ranked:
            self.host = torch.zeros(size, dtype=dtype, pin_memory=device.type == "cuda")
        if self.ranked:
            self.tail = torch.zeros(layout.width - self.cut, dtype=self.sum.dtype)
        self.landed: list[Tensor] = []  # home's, made when it first sums what it sent itself
        self.tally: Tensor | None = None  # as this rank sent it in this crossing; None until it is closed
        self.added = False

    @property
    def bytes(self) -> int:
        """Bytes handed to MPI by a rank, beside its tally."""
        return sum(part.numel() * part.itemsize for part in (self.host, self.tail))

    def begin(self) -> None:
        self.sum.zero_()
        self.tally, self.added = None, False

    def add(self, wire: Tensor, passage: Passage) -> None:
        """Encode one client's wire `(width,)`, whose memory is used up, and enter it into this rank's sum.

        Raises Unfit, with nothing entered, where the update is not finite or would not fit.
        """
        if self.tally is not None:
            raise RuntimeError("a crossing was closed, and takes no update any more: `begin` opens the next")
        self.added = True
        if not torch.isfinite(wire.sum()):
            raise Unfit(1, first(~torch.isfinite(wire)))
        for stage in self.whole:
            wire = stage.encode(wire, passage)
        if not self.elementwise:
            self.sum.add_(self._fitting(wire, self.sum))
            return
        parts = torch.split(wire, BLOCK)
        try:
            for place, part in enumerate(parts):
                for stage in self.elementwise:
                    part = stage.encode(part, passage)
                into = self.sum[place * BLOCK : (place + 1) * BLOCK]
                into.add_(self._fitting(part, into))
        except Unfit as unfit:
            unfit.at += place * BLOCK
            for earlier, part in enumerate(parts[:place]):  # integers: taking them out again leaves no trace
                for stage in self.elementwise:
                    part = stage.encode(part, passage)
                self.sum[earlier * BLOCK : earlier * BLOCK + len(part)].sub_(part)
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
        """Sum what the ranks send, and beside it the tally, in place at home; return home's mean planes and sums.

        The planes are `(up, size)`; the sums hold the strategy's, and `weight` and `clients`, the totals of both
        weightings.  Other ranks get None.  Called again before the next `begin`, it makes the same crossing again.
        """
        if self.tally is None:
            self._close(passage)
            self.tally = tally.clone() if self.comm.is_home else tally
        words = [self.host, self.tail] if len(self.tail) else [self.host]
        if not self.comm.is_home:
            self.comm.reduce(*words, self.tally)
            return None
        if self.added or self.ranked:
            self.landed = self.landed or [torch.empty_like(part) for part in words]
            landed = self.landed
        else:  # home has nothing but zeros to send, which need no second buffer
            landed = words
            for part in words:
                part.zero_()
        self.comm.reduce(*words, self.tally, into=[*landed, tally])
        wire = self._opened(landed, replace(passage, client=None))
        names = ("weight", "clients", *self.layout.sums)
        return self.layout.planes(wire), dict(zip(names, self.layout.tail(wire).tolist(), strict=True))

    def _close(self, passage: Passage) -> None:
        """Make what this rank sends of its sum, once in a crossing."""
        if not self.ranked:
            if self.host is not self.sum:
                self.host.copy_(self.sum)
            return
        planes = self.sum[: self.cut].clone()  # a stage may work in place, and the sum's own tail stays apart
        self.tail.copy_(self.sum[self.cut :])
        for stage in self.ranked:
            planes = stage.encode(planes, passage)
        self.host.copy_(self._fitting(planes, self.host))

    def _opened(self, landed: Sequence[Tensor], passage: Passage) -> Tensor:
        """Return home's decoded wire `(width,)` of the sums that landed."""
        wire = landed[0]
        for stage in reversed(self.ranked):
            wire = stage.decode(wire, passage)
        if self.ranked:
            if wire.shape != (self.cut,) or wire.dtype != self.sum.dtype:
                raise JobError(
                    f"aggregation.stages: {type(self.ranked[0]).__name__} decoded a sum to "
                    f"{_words(wire.numel(), wire.dtype)}, which had {_words(self.cut, self.sum.dtype)}"
                )
            wire = torch.cat([wire, landed[1]])
        for stage in reversed(self.stages):
            if stage.acts_on == "client":
                wire = stage.decode(wire, passage)
        return wire

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
