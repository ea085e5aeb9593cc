"""The seam between clients and home: how updates become one."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fedmpi.flow import Passage

Outcome = tuple[Tensor, dict[str, float]]  # mean planes (up, size); sums by name, `weight` and `clients` among them


@runtime_checkable
class Path(Protocol):
    """Carries the updates of a crossing from clients to home; the same calls on every rank."""

    rides: str  # what it makes of updates: "reduce" (a sum), "rows" (side by side) or "deliver" (one at a time)

    @property
    def bytes(self) -> int:
        """The bytes handed to MPI by a rank in a crossing, beside its tally."""
        ...

    def begin(self, passage: Passage) -> None:
        """Begin a crossing: nothing has come yet."""
        ...

    def add(self, rows: Tensor, passage: Passage) -> NDArray[np.int64]:
        """Take K clients' updates, rows `(K, width)` whose memory is used up; `passage` is of these clients.

        Returns `(K, 2)`: for each the reason, a key of REASONS, for which it did not enter, and the place on the wire
        of the first value at fault; 0 and 0 where it entered.  No row's fault keeps another out.
        """
        ...

    def collect(self, passage: Passage, tally: Tensor) -> Outcome | None:
        """Sum the tally `(n,)` over ranks, in place at home, and return home's outcome; None elsewhere.  Collective.

        Called again before the next `begin`, it makes the same crossing again, from the same words.
        """
        ...
