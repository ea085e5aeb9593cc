"""The engine, which trains clients on a rank, as rounds see it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from fedmpi.flow.client import Client


@dataclass
class Learned:
    """A client's update on its way out, with its counters; `loss` is NaN where the client took no step."""

    wire: Tensor  # (width,) planes filled, then Σ's zeros, then the strategy's sums
    examples: int
    steps: int
    loss: float  # mean training loss
    counts: Tensor  # (flat.whole.size,) int64: the changes of the model's counts and flags


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

    def recall(self, index: int) -> Client:
        """Return client `index` of the round under way, with its memory and the private part of its model in place."""
        ...

    def learn(self, index: int, times: int = 1) -> Learned:
        """Train client `index`, drawn so many `times`, from the model in place; its wire is valid until the next."""
        ...

    def save(self) -> None:
        """Save the memory of the client learned last: its update has entered, or needs no sum."""
        ...

    def personal(self, index: int) -> None:
        """Put client `index`'s own model in place, for scores alone: nothing of it is saved."""
        ...
