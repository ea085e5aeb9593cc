"""The content of a broadcast: the model as a round receives it, and a header of a few words."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from fedmpi.tell import Interrupted

HEADER = 16  # 64-bit words behind the planes: 128 bytes, so one Bcast carries both
SAID = 4  # of them the strategy's scalars, float64


class State:
    """The model as a round receives it: the same on every rank after a broadcast.

    One host buffer holds `[private | planes (down, size) | header | counts]`; all but the private part (a personal
    head, left with the client) travels.  `received` is the private part and the first plane, laid out like a model's
    values.  The header lies behind the planes so that `received` is one contiguous piece.  `counts` `(counts,)` int64
    are the model's counts and flags: its small buffers of whole numbers.  `paces` `(paces,)` float64 are what home
    knows of the ranks' speed.
    """

    def __init__(
        self, private: int, size: int, down: int, dtype: torch.dtype, pin: bool = False, counts: int = 0, paces: int = 0
    ) -> None:
        words = (HEADER + counts + paces) * 8 // dtype.itemsize
        self.buffer = torch.zeros(private + down * size + words, dtype=dtype, pin_memory=pin)
        self.travels = self.buffer[private:]
        self.received = self.buffer[: private + size]  # the private part is each rank's own
        self.planes = self.buffer[private : private + down * size].view(down, size)
        behind: NDArray[np.int64] = self.buffer[private + down * size :].view(torch.int64).numpy()
        self.header, self.counts = behind[:HEADER], behind[HEADER : HEADER + counts]
        self.paces = behind[HEADER + counts :].view(np.float64)
        self.said = self.header[HEADER - SAID :].view(np.float64)  # a strategy's scalars, from home to every client

    @property
    def round(self) -> int:
        """The round under way, from 1; the model received is the work of the round before it."""
        return int(self.header[0])

    @round.setter
    def round(self, value: int) -> None:
        self.header[0] = value

    @property
    def crossing(self) -> int:
        """The pass of the round under way, from 0: strategies with two crossings a round count here."""
        return int(self.header[1])

    @crossing.setter
    def crossing(self, value: int) -> None:
        self.header[1] = value

    @property
    def launch(self) -> int:
        """The number of this launch of the run, from 1: keys of masks and noise are of one launch."""
        return int(self.header[4])

    @launch.setter
    def launch(self, value: int) -> None:
        self.header[4] = value

    @property
    def held(self) -> tuple[int, int]:
        """The rounds to which a run may go back: of the newest checkpoint on disk, and of the one under way (0: none).

        Home told them as this crossing began; what clients keep is overwritten by them.
        """
        return int(self.header[5]), int(self.header[6])

    @held.setter
    def held(self, rounds: tuple[int, int]) -> None:
        self.header[5:7] = rounds

    @property
    def done(self) -> bool:
        """True where the run is over: the model received is the final one."""
        return bool(self.header[2])

    @property
    def code(self) -> int:
        """The exit status of a run that is `done`: 0 unless it broke or was interrupted."""
        return int(self.header[3])

    @property
    def interrupted(self) -> bool:
        """True, on every rank, where somebody asked the run to end: it can go on another time."""
        return self.done and self.code == Interrupted.code

    def ended(self, code: int = 0) -> None:
        """Mark the run as over: the next broadcast tells every rank."""
        self.header[2], self.header[3] = 1, code
