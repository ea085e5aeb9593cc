"""How updates become one: encoded, summed on the rank, reduced over ranks, decoded at home."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedmpi.aggregation.paths.entry import Entry, words
from fedmpi.aggregation.paths.path import Outcome
from fedmpi.aggregation.pipeline import owns
from fedmpi.aggregation.stages import Stage
from fedmpi.flat import zeros
from fedmpi.flow import Comm, Layout, Passage, Pending
from fedmpi.job import JobError


class ReducePath:
    """A path of one weighted `Reduce` a crossing.

    `begin` empties this rank's sum, `add` enters clients' updates, `collect` makes the sum of all.  A rank without a
    client in this crossing sends zeros.

    `sum` has the type of the clients' stages.  What is sent is `host`: the sum itself, or a copy of it on the host
    where it lies on a GPU (`staged` forces the copy, for tests without a GPU), or the planes as the stages on ranks'
    sums made them.  Where these change the planes' type or size, the tail travels apart, as it is in the sum.

    What is sent is made once in a crossing and stays as it is until the next `begin`: a second `collect` sends the
    same words and the same tally, at home too.
    """

    rides = "reduce"

    def __init__(
        self, comm: Comm, stages: Sequence[Stage], layout: Layout, device: torch.device, staged: bool = False
    ) -> None:
        self.comm, self.stages, self.layout = comm, list(stages), layout
        clients = [stage for stage in stages if stage.acts_on == "client"]
        self.ranked = [stage for stage in stages if stage.acts_on in ("rank", "domain")]
        size, dtype = layout.width, layout.dtype
        for stage in clients:
            size, dtype = stage.wire(size, dtype)
            if not dtype.is_floating_point and stage.place != "integer":
                # It would stand before the weighing, which needs values.
                raise JobError(
                    f"aggregation.stages: {type(stage).__name__} makes {words(size, dtype)}; it should say so with "
                    f"place = 'integer'"
                )
        self.sum = zeros(size, dtype, device)
        self.entry = Entry(clients, self.sum)
        self.cut = layout.up * layout.size  # where the tail begins, in the sum
        sent = self._wired(size, dtype)
        self.apart = sent != (size, dtype)  # the tail travels by itself
        if self.apart:
            if size != layout.width:
                raise JobError(
                    f"aggregation.stages: {type(self.ranked[0]).__name__} acts on a rank's sum, whose planes it cannot "
                    f"tell from the tail: the stages before it make {size:,} values of {layout.width:,}"
                )
            sent = self._wired(self.cut, dtype)
        self.fillers = [stage for stage in stages if owns(stage, "begin")]
        filled = [stage for stage in self.ranked if stage in self.fillers]
        # A stage that fills its output and changes its input needs the two apart.
        mixed = bool(filled) and (len(self.ranked) > 1 or owns(filled[0], "encode"))
        self.host, self.tail = self.sum, torch.zeros(0, dtype=dtype)
        if staged or device.type != "cpu" or self.apart or mixed:
            self.host = torch.zeros(*sent[:1], dtype=sent[1], pin_memory=device.type == "cuda")
        if self.apart:
            self.tail = torch.zeros(layout.width - self.cut, dtype=dtype)
        self.filled = bool(filled) and self.host is not self.sum
        self.pending: list[Pending] = []
        self.agreed: dict[Stage, Tensor] = {}
        self.landed: list[Tensor] = []  # home's, made when it first sums what it sent itself
        self.tally: Tensor | None = None  # as this rank sent it in this crossing; None until it is closed
        self.added = False

    def _wired(self, size: int, dtype: torch.dtype) -> tuple[int, torch.dtype]:
        """Return the size and type that the stages on ranks' sums make of a buffer."""
        for stage in self.ranked:
            size, dtype = stage.wire(size, dtype)
        return size, dtype

    @property
    def bytes(self) -> int:
        """Bytes handed to MPI by a rank, beside its tally."""
        return sum(part.numel() * part.itemsize for part in (self.host, self.tail))

    def begin(self, passage: Passage) -> None:
        self._wait()  # of a crossing that nobody collected
        self.sum.zero_()
        if self.filled:
            self.host.zero_()
        self.tally, self.added = None, bool(self.fillers)
        self.agreed.clear()
        for stage in self.fillers:
            pending = stage.begin(self.sum if stage.acts_on == "client" else self.host, passage)
            if pending is not None:
                self.pending.append(pending)

    def add(self, rows: Tensor, passage: Passage) -> NDArray[np.int64]:
        """Encode clients' rows `(K, width)`, whose memory is used up, and enter them into this rank's sum.

        Returns each row's reason and place of fault `(K, 2)`; nothing is entered of a row that is not finite or would
        not fit.
        """
        if self.tally is not None:
            raise RuntimeError("a crossing was closed, and takes no update any more: `begin` opens the next")
        self._wait()
        self.added = True
        return self.entry.add(rows, passage)

    def collect(self, passage: Passage, tally: Tensor) -> Outcome | None:
        """Sum what the ranks send, and beside it the tally, in place at home; return home's mean planes and sums.

        The planes are `(up, size)`; the sums hold the strategy's and the stages' notes, and `weight` and `clients`, the
        totals of both weightings.  Other ranks get None.  Called again before the next `begin`, it makes the same
        crossing again.
        """
        comm, home = self.comm, self.comm.is_home
        again = self.tally is not None
        if self.tally is None:
            self._close(passage)
            self.tally = tally.clone() if home else tally
        parts = [self.host, self.tail] if self.apart else [self.host]
        if not home:
            comm.reduce(*parts, self.tally, root=comm.home[0])
            self._opened([], passage)
            return None
        if self.added or self.ranked:
            self.landed = self.landed or [torch.empty_like(part) for part in parts]
            landed = self.landed
        else:  # home has nothing but zeros to send, which need no second buffer
            landed = parts
            for part in parts if again else ():
                part.zero_()  # of what landed there
        comm.reduce(*parts, self.tally, root=comm.home[0], into=[*landed, tally])
        wire = self._opened(landed, passage)
        totals = {"weight": self.layout.fixed.get("examples", self.layout.fixed.get("uniform", 0.0))}
        totals["clients"] = self.layout.fixed.get("uniform", totals["weight"])
        scalars = dict(zip(self.layout.scalars, self.layout.tail(wire).tolist(), strict=True))
        return self.layout.planes(wire), {**totals, **scalars}

    def _wait(self) -> None:
        while self.pending:
            self.pending.pop().wait()

    def _close(self, passage: Passage) -> None:
        """Make what this rank sends of its sum, once in a crossing."""
        self._wait()
        sent = self.sum
        if self.apart:
            self.tail.copy_(self.sum[self.cut :])
            sent = self.sum[: self.cut]
        if self.ranked and self.host is not self.sum:
            sent = sent.clone()  # a stage may work in place
        for stage in self.ranked:
            if owns(stage, "agree"):
                self._agree(stage, sent, passage)
            sent = stage.encode(sent, replace(passage, agreed=self.agreed.get(stage)))
        if sent.shape != self.host.shape or sent.dtype != self.host.dtype:
            raise JobError(
                f"aggregation.stages: {', '.join(type(stage).__name__ for stage in self.ranked)} made "
                f"{words(sent.numel(), sent.dtype)} of a rank's sum, where `wire` says "
                f"{words(len(self.host), self.host.dtype)}"
            )
        if sent is not self.host:
            if self.filled:
                self.host.add_(sent)
            else:
                self.host.copy_(sent)

    def _agree(self, stage: Stage, wire: Tensor, passage: Passage) -> None:
        """Let a stage's numbers meet those of the other ranks."""
        numbers = stage.agree(wire, passage)
        if numbers is not None:
            self.agreed[stage] = numbers.detach().to("cpu", torch.float64, copy=True).reshape(-1)
            self.comm.largest(self.agreed[stage])

    def _opened(self, landed: Sequence[Tensor], passage: Passage) -> Tensor:
        """Return home's decoded wire `(width,)` of the sums that landed; elsewhere help to open it."""
        wire = landed[0] if landed else None
        for stage in reversed(self.stages):
            if owns(stage, "open"):
                stage.open(wire, passage)
            if wire is None:
                continue
            wire = stage.decode(wire, replace(passage, agreed=self.agreed.get(stage)))
            if self.apart and stage is self.ranked[0]:
                if wire.shape != (self.cut,) or wire.dtype != self.sum.dtype:
                    raise JobError(
                        f"aggregation.stages: {type(stage).__name__} decoded a sum to "
                        f"{words(wire.numel(), wire.dtype)}, which had {words(self.cut, self.sum.dtype)}"
                    )
                wire = torch.cat([wire, landed[1]])
        return self.sum if wire is None else wire
