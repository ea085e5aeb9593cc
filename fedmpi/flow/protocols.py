"""The protocols that rooms meet by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fedmpi.flow.passage import Clients
from fedmpi.tell import Refused

LOWER = ("loss", "mse", "mae", "rmse", "perplexity")  # scores of which less is better, unless a metric says otherwise


class Comm(Protocol):
    """How ranks talk, as the other rooms see it: `me` is a birth id, 0 the server; buffers are host tensors.

    Every method is collective over the communicator; a size of one needs no MPI.
    """

    me: int
    size: int
    library: str
    place: Any

    @property
    def is_home(self) -> bool: ...

    @property
    def is_scribe(self) -> bool: ...

    def broadcast(self, vector: Tensor, root: int = 0) -> None:
        """The `vector` of rank `root` (home's) on every rank, in place."""
        ...

    def reduce(self, *vectors: Tensor) -> None:
        """The sum over ranks of each vector, in place at home; elsewhere a vector keeps what it held."""
        ...

    def fail(self, error: Refused) -> None:
        """End every rank at once, from one that cannot come to the next collective; not collective, never returns."""
        ...

    def settle(self, error: Refused | None) -> None:
        """Go on where no rank has an error; else every rank raises, and the lowest one with an error tells it."""
        ...


class Task(Protocol):
    """What is asked of the model: how examples become inputs, what the loss is, which metrics there are."""

    @property
    def metrics(self) -> Mapping[str, Any]: ...

    def outputs(self, classes: tuple[str, ...]) -> int:
        """How many outputs a built-in model has for it."""
        ...

    def inputs(self, x: Tensor) -> Tensor:
        """What the model takes, from stored columns `(N, ...)`: cast and scaled, on the device they are on."""
        ...

    def loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Mean loss over the batch, a scalar tensor."""
        ...


class Examples(Protocol):
    """A shard set, as the other rooms see it."""

    clients: int
    examples: int
    largest: int

    def sizes(self, clients: Clients) -> NDArray[np.int64]: ...

    def train(self, client: int) -> tuple[Tensor, Tensor]: ...

    def heldout(self, client: int) -> tuple[Tensor, Tensor]: ...

    def test(self) -> tuple[Tensor, Tensor]: ...


class Memory(Protocol):
    """What clients keep between rounds, a vector each; any rank may ask for any client's."""

    def load(self, client: int, upto: int) -> Tensor | None:
        """The vector `(width,)` on the host that the client kept last, not later than round `upto`; None if never."""
        ...

    def save(self, client: int, round: int, vector: Tensor) -> None: ...
