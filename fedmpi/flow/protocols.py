"""The protocols between rooms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fedmpi.flow.passage import Clients

LOWER = ("loss", "mse", "mae", "rmse", "perplexity")  # scores better when lower, unless a metric says otherwise


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
