"""The talk of ranks, as the rooms see it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from fedmpi.tell import Refused


@runtime_checkable
class Pending(Protocol):
    """A collective, or another piece of work, that was started and not yet waited for."""

    def wait(self) -> None:
        """Return when its buffers hold the result; a second call returns at once."""
        ...


class Comm(Protocol):
    """The talk of ranks: `me` is a birth id, `alive` are the ids of all members, ascending; buffers are host tensors.

    Roots and ranks are birth ids.  Every method but `buffer` and `fail` is collective over the communicator, and every
    rank calls the same one; a size of one needs no MPI.  `home` are the ranks that hold the mean and take the server's
    step, the scribe is the one of them that writes, and a `root` is the rank on which a sum lands.
    """

    me: int
    size: int
    alive: tuple[int, ...]
    epoch: int  # the number of times that the ranks were regrouped
    home: tuple[int, ...]
    library: str
    place: Any

    @property
    def is_home(self) -> bool:
        """True on a rank that holds the mean and takes the server's step."""
        ...

    @property
    def is_scribe(self) -> bool:
        """True on the one rank that writes the journal and checkpoints."""
        ...

    @property
    def within(self) -> Comm:
        """The ranks that serve one client together, this one among them: an engine speaks to them."""
        ...

    @property
    def across(self) -> Comm:
        """One rank of each group that serves a client together: a path speaks to them."""
        ...

    def buffer(self, size: int, dtype: torch.dtype) -> Tensor:
        """Return zeros `(size,)` that collectives of this communicator carry best; not collective."""
        ...

    def broadcast(self, vector: Tensor, root: int = 0) -> None:
        """Lay the `vector` of rank `root` in place on every rank."""
        ...

    def reduce(self, *vectors: Tensor, root: int = 0, into: Sequence[Tensor] | None = None) -> None:
        """Sum each vector over ranks, on rank `root`: in place, or in the tensors `into`; other ranks keep theirs.

        With `into` the root's own vectors stay as they were too, so the same sum can be made again; one that is its own
        place in `into` is summed in place.
        """
        ...

    def start_broadcast(self, vector: Tensor, root: int = 0) -> Pending:
        """Start a `broadcast`; all ranks start it, none calls the blocking one instead."""
        ...

    def start_reduce(self, *vectors: Tensor, root: int = 0, into: Sequence[Tensor] | None = None) -> Pending:
        """Start a `reduce`; all ranks start it, and leave their vectors alone until it is waited for."""
        ...

    def largest(self, vector: Tensor) -> None:
        """Lay the largest value over ranks in each place of `vector`, on every rank; NaN wins where one is there."""
        ...

    def total(self, vector: Tensor) -> None:
        """Lay the sum over ranks in each place of `vector`, on every rank."""
        ...

    def gather(self, vector: Tensor) -> Tensor:
        """Return every rank's `vector (n,)` as rows `(size, n)`, in the order of `alive`, on every rank."""
        ...

    def exchange(self, parts: Sequence[Tensor]) -> list[Tensor]:
        """Send part i `(n_i,)` to member i of `alive`, and return the parts sent to this rank, in their order.

        All are of one dtype; their sizes may differ, and be 0.
        """
        ...

    def agree(self, ok: bool) -> bool:
        """Return whether all ranks said `ok`: the same on every rank."""
        ...

    def group(self, ranks: Sequence[int]) -> Comm | None:
        """Return a communicator of some `ranks`, None on a rank outside; every rank gives the same ranks.

        Its home are those of home among them, the lowest rank where none is.
        """
        ...

    def fail(self, error: Refused) -> None:
        """End every rank at once, from a rank unable to reach the next collective; not collective, never returns."""
        ...

    def settle(self, error: Refused | None) -> None:
        """Go on where no rank has an error; else every rank raises, and the lowest one with an error tells it."""
        ...
