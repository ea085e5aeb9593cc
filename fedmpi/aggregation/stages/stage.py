"""The seam of all aggregation: one change to how an update travels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from fedmpi.flow import Comm, Passage, Pending


class Stage:
    """One change to how updates travel; a stage overrides the few methods that it needs.

    `encode` is applied in the job's order on the way out: to clients' rows `(K, width)` where it `acts_on` "client", to
    a rank's sum `(width,)` ("rank") or a site's ("domain"; where a job names no sites, each rank is one).  `decode`
    follows in reverse order on the way in, at home; a stage that acts on "home" has nothing but that.  Both may work in
    place, and return the result.  A stage raises Unfit, before it changes anything, where one of its rows must not
    enter the sum: the path then hands it the rows one by one.

    `place` says whether a stage works on values before their weights ("value"), on weighted ones ("weighed") or on
    integers ("integer"), whose sums are the same in every order.  Neither `place` nor `acts_on` goes back along a
    pipeline.  Only a stage on a rank's or a site's sum may change the planes' type and size; all such stages then see
    the planes alone, and the tail travels apart, as it is.
    """

    acts_on: ClassVar[str] = "client"
    place: ClassVar[str] = "value"
    rides: ClassVar[frozenset[str]] = frozenset({"reduce", "rows", "deliver"})  # summed, side by side, one at a time
    bound: float | None = None  # the largest L2 norm of an update after it; None: any
    hides: ClassVar[bool] = False  # nothing may be told of a single client: not in the tally, not in the journal
    survives: ClassVar[bool] = True  # a sum without the ranks that died can still be decoded
    elementwise: ClassVar[bool] = False  # it treats every value alike: it may be handed piece after piece
    totals: Mapping[str, float] = {}  # fixed totals by weighting, to divide by in place of the observed ones
    memory: Mapping[str, str] = {}  # what each client keeps for it: "planes", "trained", "model" or "scalar"
    notes: Mapping[str, str] = {}  # coordinates of its own on the tail, with the weighting of each
    counters: ClassVar[tuple[str, ...]] = ()  # what `count` counts, summed over ranks into the journal

    def wire(self, size: int, dtype: torch.dtype) -> tuple[int, torch.dtype]:
        """Return the size and type of the buffer after this stage, for one of `size` values of `dtype` before it."""
        return size, dtype

    # On every rank.

    def join(self, comm: Comm, launch: int) -> None:
        """Meet the other ranks, at the start of a launch and whenever they were regrouped.  Collective."""

    def begin(self, wire: Tensor, passage: Passage) -> Pending | None:
        """Begin a crossing: `wire`, all zeros, is the buffer that its output lands in, and may be filled.

        What comes later is added to it.  A Pending that is returned is waited for before the first update enters.  A
        stage that begins so is the last of those that act on the same.
        """
        return None

    def agree(self, wire: Tensor, passage: Passage) -> Tensor | None:
        """Return numbers `(n,)` of a rank's sum: their largest over ranks is `passage.agreed` in `encode` and `decode`.

        Every rank returns as many, or None.
        """
        return None

    def encode(self, wire: Tensor, passage: Passage) -> Tensor:
        return wire

    def open(self, wire: Tensor | None, passage: Passage) -> None:
        """Meet the other ranks over the sum, before it is decoded, and change it in place.  Collective.

        `wire` is the sum at home, None elsewhere.
        """

    def state(self) -> dict[str, Tensor]:
        """Return this rank's tensors for a checkpoint, by name."""
        return {}

    def load(self, states: Sequence[Mapping[str, Tensor]]) -> None:
        """Go on from the states of a checkpoint: this rank's, and those of ranks that are no more, dealt to the rest.

        There is none for a rank that was not there.
        """

    def count(self) -> tuple[int, ...]:
        """Return the counters since the last call, in their order."""
        return ()

    # At home.

    def decode(self, wire: Tensor, passage: Passage) -> Tensor:
        return wire

    def charge(self, passage: Passage) -> dict[str, Any]:
        """Return what it costs to release this crossing's sum, by name; it is written down before the crossing."""
        return {}

    def ledger(self) -> dict[str, Any]:
        """Return the entries for this crossing's journal line, by name."""
        return {}

    def error(self, clients: int) -> float:
        """Return the largest error of each value in a sum of `clients` wires: 0 for an exact stage."""
        return 0.0
