"""The engine, which trains clients on a rank, as rounds see it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fedmpi.flow.client import Client
from fedmpi.flow.passage import Passage, Places
from fedmpi.flow.protocols import Memory


@dataclass
class Learned:
    """The updates of K clients on their way out, a row each, with their counters.

    Its tensors are valid until the engine trains on.  `memory` is what the stages keep of each client, part of
    `keepsakes`, which is all that each client keeps: None where its training keeps nothing.
    """

    places: Places  # (K,) in the cohort
    rows: Tensor  # (K, width) planes filled, then Σ's zeros, the strategy's sums, and zeros for notes
    examples: NDArray[np.int64]  # (K,)
    steps: NDArray[np.int64]  # (K,)
    loss: NDArray[np.float64]  # (K,) mean training loss, NaN where the client took no step
    counts: Tensor  # (K, flat.whole.size) int64: the changes of the model's counts and flags
    memory: Mapping[str, Tensor] = field(default_factory=dict)  # (K, n), to be changed in place
    keepsakes: Tensor | None = None  # (K, kept)

    def save(self, memory: Memory | None, passage: Passage, entered: NDArray[np.bool_] | None = None) -> None:
        """Save the keepsakes, as of the passage's round, of the clients that `entered` `(K,)` the sum; None: of all."""
        if memory is None or self.keepsakes is None:
            return
        for row, client in enumerate(passage.clients[self.places].tolist()):
            if entered is None or entered[row]:
                memory.save(client, passage.round, self.keepsakes[row])


@runtime_checkable
class Engine(Protocol):
    """Trains clients on this rank's model, one after another or several at once."""

    def start(self) -> None:
        """Take the model as it is now as every client's first, before the first round."""
        ...

    def receive(self) -> None:
        """Fetch the last broadcast to this rank's device, for all its clients of the round."""
        ...

    def begin(self) -> None:
        """Lay the received model in place, as every client starts from it."""
        ...

    def train(self, places: Places, passage: Passage) -> Iterator[Learned]:
        """Train the clients at `places` of the cohort, each from the received model; yield their updates.

        A client drawn several times trains once.  Nothing is saved: what a client keeps counts once its update entered.
        """
        ...

    def objective(self, client: int) -> float:
        """Return a client's mean loss over all its examples, at the received model."""
        ...

    def recall(self, client: int) -> Client:
        """Return a client, with its memory and the private part of its model in place."""
        ...

    def personal(self, client: int) -> None:
        """Put a client's own model in place, for scores alone: nothing of it is saved."""
        ...
