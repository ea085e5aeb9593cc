"""A client's keepsake from round to round: the private part of its model, and its strategy's memory of it."""

from __future__ import annotations

import torch
from torch import Tensor

from fedmpi.flat import FlatModel
from fedmpi.flow import Memory, Strategy


def keepsake_sizes(strategy: Strategy, flat: FlatModel) -> dict[str, int]:
    """Return the numbers of values that each client keeps, by name: the private part, then the strategy's memory."""
    private = flat.shared.start
    sizes = {"model": flat.size, "trained": flat.trained.stop - private, "scalar": 1}
    own = {"private": private} if private else {}
    return own | {name: sizes[kind] for name, kind in strategy.memory.items()}


class Keepsake:
    """One client's keepsake at a time, its parts laid end to end in one vector; `memory` holds everybody's.

    `parts` are the strategy's, by name, as views.  A client new to the run begins with `first`: the run's
    first model, and zeros.
    """

    def __init__(self, strategy: Strategy, flat: FlatModel, memory: Memory | None) -> None:
        self.flat, self.memory = flat, memory
        self.kinds = dict(strategy.memory)
        sizes = keepsake_sizes(strategy, flat)
        self.vector = torch.zeros(sum(sizes.values()), dtype=flat.dtype, device=flat.device)
        pieces = dict(zip(sizes, torch.split(self.vector, list(sizes.values())), strict=True))
        self.private = pieces.pop("private", None)
        self.parts: dict[str, Tensor] = pieces
        self.first = torch.empty_like(self.vector)
        self.start()

    def start(self) -> None:
        """Take the model as it is now as every client's first."""
        self.vector.zero_()
        if self.private is not None:
            self.private.copy_(self.flat.values[: len(self.private)])
        for name, part in self.parts.items():
            if self.kinds[name] == "model":
                part.copy_(self.flat.values[self.flat.shared])
        self.first.copy_(self.vector)

    def recall(self, client: int, upto: int) -> bool:
        """Recall a client's last keepsake, not later than round `upto`; False where it has none."""
        last = self.memory.load(client, upto) if self.memory is not None and len(self.vector) else None
        self.vector.copy_(self.first if last is None else last)
        if self.private is not None and last is not None:
            self.flat.values[: len(self.private)].copy_(self.private)
        return last is not None

    def save(self, client: int, round: int) -> None:
        """Keep the client's memory, and the private part of its model, as of a round."""
        if self.memory is None or not len(self.vector):
            return
        if self.private is not None:
            self.private.copy_(self.flat.values[: len(self.private)])
        self.memory.save(client, round, self.vector)
