"""A client's keepsake from round to round: the private part of its model, its strategy's memory and the stages'."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fedmpi.flat import FlatModel, zeros
from fedmpi.flow import Memory, Strategy
from fedmpi.job import JobError, shown


def keepsake_sizes(
    strategy: Strategy, flat: FlatModel, keeps: Mapping[str, str] | None = None, up: int = 1
) -> dict[tuple[str, str], int]:
    """Return the numbers of values that each client keeps, by owner and name.

    The private part of the model comes first, then the strategy's memory, then what the stages keep (`keeps`, by name
    and kind) of updates of `up` planes.
    """
    private = flat.shared.start
    sizes = {"model": flat.size, "trained": flat.trained.stop - private, "scalar": 1, "planes": up * flat.size}
    own = {("model", "private"): private} if private else {}
    own |= {("strategy", name): sizes[kind] for name, kind in strategy.memory.items()}
    return own | {("stages", name): sizes[kind] for name, kind in (keeps or {}).items()}


class Keepsake:
    """One client's keepsake at a time, its parts laid end to end in one vector; `memory` holds everybody's.

    `parts` are the strategy's, by name, as views, and `staged` those of the stages.  A client new to the run begins
    with `first`: the run's first model, and zeros.
    """

    def __init__(
        self, strategy: Strategy, flat: FlatModel, memory: Memory | None, keeps: Mapping[str, str], up: int
    ) -> None:
        self.flat, self.memory = flat, memory
        self.models = [name for name, kind in strategy.memory.items() if kind == "model"]
        self.sizes = sizes = keepsake_sizes(strategy, flat, keeps, up)
        self.vector = zeros(sum(sizes.values()), flat.dtype, flat.device)
        pieces = dict(zip(sizes, torch.split(self.vector, list(sizes.values())), strict=True))
        self.private = pieces.get(("model", "private"))
        self.parts: dict[str, Tensor] = {name: part for (owner, name), part in pieces.items() if owner == "strategy"}
        self.staged: dict[str, Tensor] = {name: part for (owner, name), part in pieces.items() if owner == "stages"}
        self.first = torch.empty_like(self.vector)
        self.start()

    def cut(self, rows: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the parts of several clients' keepsakes `(K, kept)`, as views: the strategy's, and the stages'."""
        pieces = dict(zip(self.sizes, torch.split(rows, list(self.sizes.values()), dim=1), strict=True))
        own, staged = (
            {name: part for (owner, name), part in pieces.items() if owner == of} for of in ("strategy", "stages")
        )
        return own, staged

    def start(self) -> None:
        """Take the model as it is now as every client's first."""
        self.vector.zero_()
        if self.private is not None:
            self.private.copy_(self.flat.values[: len(self.private)])
        for name in self.models:
            self.parts[name].copy_(self.flat.values[self.flat.shared])
        self.first.copy_(self.vector)

    def recall(self, client: int, upto: int) -> bool:
        """Recall a client's last keepsake, not later than round `upto`; False where it has none."""
        last = self.memory.load(client, upto) if self.memory is not None and len(self.vector) else None
        self.vector.copy_(self.first if last is None else last)
        if self.private is not None and last is not None:
            self.flat.values[: len(self.private)].copy_(self.private)
        return last is not None

    def take(self, memory: Mapping[str, Tensor]) -> None:
        """Take the private part of the model in place, and the strategy's `memory`, into the vector.

        Most strategies change their memory in place; a tensor that one laid in its place is copied.  JobError where it
        is no such tensor.
        """
        if self.private is not None:
            self.private.copy_(self.flat.values[: len(self.private)])
        for name, part in self.parts.items():
            laid: object = memory.get(name)
            if laid is part:
                continue
            if not isinstance(laid, Tensor) or laid.shape != part.shape:
                there = tuple(laid.shape) if isinstance(laid, Tensor) else shown(laid)
                raise JobError(
                    f"strategy: left {there} as a client's memory {name!r}; it should be a tensor {tuple(part.shape)}"
                )
            part.copy_(laid.detach())
