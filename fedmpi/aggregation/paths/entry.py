"""The entry of clients' rows into a rank's sum, through the stages that act on each client."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedmpi.aggregation.stages import Stage, Weigh
from fedmpi.flow import Passage, Unfit
from fedmpi.job import JobError

BLOCK = 2**17  # values that pass through the elementwise stages and into the sum at once: they stay in cache


class Entry:
    """The entry into `sum`, always by adding: a stage may have filled it before.

    Rows pass each stage together, and one by one from a stage on where one of them is unfit for it.  The elementwise
    stages at the end of the pipeline take each row in pieces.
    """

    def __init__(self, stages: Sequence[Stage], sum: Tensor) -> None:
        cut = len(stages)
        while cut and stages[cut - 1].elementwise:
            cut -= 1
        self.whole, self.elementwise = list(stages[:cut]), list(stages[cut:])
        # Where weighing comes last it is done as rows are added: one pass less over a large model.
        last = self.whole[-1] if self.whole and not self.elementwise else None
        self.weigh = last if isinstance(last, Weigh) else None
        if self.weigh is not None:
            self.whole.pop()
        self.stages, self.sum = list(stages), sum

    def add(self, rows: Tensor, passage: Passage) -> NDArray[np.int64]:
        """Enter the rows `(K, width)` that are fit; return each one's reason and place of fault `(K, 2)`."""
        faults = np.zeros((len(rows), 2), np.int64)
        unfit = np.flatnonzero(~torch.isfinite(rows.sum(-1)).cpu().numpy())
        for row in unfit.tolist():
            faults[row] = 1, first(~torch.isfinite(rows[row]))
        fit = [slice(None)] if not len(unfit) else [slice(row, row + 1) for row in np.flatnonzero(faults[:, 0] == 0)]
        for some in fit:
            self._encode(rows[some], passage if len(fit) == 1 and not len(unfit) else passage.of(some), faults[some])
        return faults

    def _encode(self, rows: Tensor, passage: Passage, faults: NDArray[np.int64], begin: int = 0) -> None:
        """Take rows through the stages from `begin` on and into the sum; note each one's fault in `faults` `(K, 2)`."""
        for place, stage in enumerate(self.whole[begin:], begin):
            try:
                rows = stage.encode(rows, passage)
            except Unfit as unfit:
                if len(rows) == 1:
                    faults[0] = unfit.reason, unfit.at
                    return
                for row in range(len(rows)):
                    one = slice(row, row + 1)
                    self._encode(rows[one], passage.of(one), faults[one], place)
                return
        if rows.dim() != 2 or len(rows) != len(faults):
            raise self._misfit(rows, rows.numel())
        if self.weigh is not None:
            for row in rows:
                self._fitting(row[None], self.sum)
            self.weigh.add(rows, passage, self.sum)
            return
        if not self.elementwise:
            for row in range(len(rows)):
                self.sum.add_(self._fitting(rows[row : row + 1], self.sum))
            return
        for row in range(len(rows)):
            one = slice(row, row + 1)
            try:
                self._enter(rows[one], passage if len(rows) == 1 else passage.of(one))
            except Unfit as unfit:
                faults[row] = unfit.reason, unfit.at

    def _enter(self, row: Tensor, passage: Passage) -> None:
        """Add one row `(1, width)` to the sum, piece by piece; Unfit where it is, and then nothing of it is there."""
        parts = torch.split(row, BLOCK, dim=1)
        try:
            for place, part in enumerate(parts):
                into = self.sum[place * BLOCK : (place + 1) * BLOCK]
                into.add_(self._fitting(self._piece(part, passage, place), into))
        except Unfit as unfit:
            unfit.at += place * BLOCK
            for earlier, part in enumerate(parts[:place]):  # integers: taking them out again leaves no trace
                into = self.sum[earlier * BLOCK : (earlier + 1) * BLOCK]
                into.sub_(self._piece(part, passage, earlier)[0])
            raise

    def _piece(self, part: Tensor, passage: Passage, place: int) -> Tensor:
        passage = passage.piece(place * BLOCK)
        for stage in self.elementwise:
            part = stage.encode(part, passage)
        return part

    def _fitting(self, row: Tensor, into: Tensor) -> Tensor:
        """Return an encoded row as `(width,)`; JobError where its shape or type differs from its stages' `wire`."""
        if row.shape != (1, *into.shape) or row.dtype != into.dtype:
            raise self._misfit(row, len(into))
        return row[0]

    def _misfit(self, row: Tensor, size: int) -> JobError:
        return JobError(
            f"aggregation.stages: {', '.join(type(stage).__name__ for stage in self.stages)} made "
            f"{words(row.numel(), row.dtype)} of an update, where `wire` says {words(size, self.sum.dtype)}"
        )


def words(size: int, dtype: torch.dtype) -> str:
    """Return the size and type of a buffer in words."""
    return f"{size:,} values of {str(dtype)[6:]}"


def first(wrong: Tensor) -> int:
    """Return the first wrong place of `(width,)`; 0 where none is (a sum of finite numbers may overflow)."""
    return int(wrong.int().argmax())
