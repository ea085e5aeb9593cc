"""The protocols between rooms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fedmpi.flow.passage import Clients
from fedmpi.tell import Refused

LOWER = ("loss", "mse", "mae", "rmse", "perplexity")  # scores better when lower, unless a metric says otherwise


class Comm(Protocol):
    """The talk of ranks, as the other rooms see it: `me` is a birth id, 0 the server; buffers are host tensors.

    Every method is collective over the communicator; a size of one needs no MPI.
    """

    me: int
    size: int
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

    def broadcast(self, vector: Tensor, root: int = 0) -> None:
        """Lay the `vector` of rank `root` (home's) in place on every rank."""
        ...

    def reduce(self, *vectors: Tensor) -> None:
        """Sum each vector over ranks, in place at home; elsewhere a vector stays as it was."""
        ...

    def fail(self, error: Refused) -> None:
        """End every rank at once, from a rank unable to reach the next collective; not collective, never returns."""
        ...

    def settle(self, error: Refused | None) -> None:
        """Go on where no rank has an error; else every rank raises, and the lowest one with an error tells it."""
        ...


class Task(Protocol):
    """The task of a model: inputs made of examples, a loss, metrics.

    It may have `losses(outputs, y)` beside the loss: `(N,)`, the loss of each example by itself, so that their mean is
    the batch's.  Only then can batches be padded: rows of weight zero leave the loss of the others, and its gradient.
    """

    @property
    def metrics(self) -> Mapping[str, Any]:
        """The task's metrics by name."""
        ...

    def outputs(self, classes: tuple[str, ...]) -> int:
        """Return the number of outputs of a built-in model."""
        ...

    def inputs(self, x: Tensor) -> Tensor:
        """Return the model's inputs of stored columns `(N, ...)`: cast and scaled, on their device."""
        ...

    def loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Return the mean loss over a batch, a scalar tensor."""
        ...


class Examples(Protocol):
    """A shard set, as the other rooms see it."""

    clients: int
    examples: int
    largest: int

    def sizes(self, clients: Clients) -> NDArray[np.int64]:
        """Return the numbers of training examples of `clients (n,)`."""
        ...

    def train(self, client: int) -> tuple[Tensor, Tensor]:
        """Return a client's training examples, as stored columns x and y."""
        ...

    def heldout(self, client: int) -> tuple[Tensor, Tensor]:
        """Return a client's held-out examples."""
        ...

    def test(self) -> tuple[Tensor, Tensor]:
        """Return the central test examples."""
        ...


class Memory(Protocol):
    """The clients' memory between rounds, a vector each; any rank may ask for any client's."""

    def load(self, client: int, upto: int) -> Tensor | None:
        """Return a client's last vector `(width,)`, on the host, not later than round `upto`; None if there is none."""
        ...

    def save(self, client: int, round: int, vector: Tensor) -> None:
        """Keep a client's vector `(width,)` of a round."""
        ...
