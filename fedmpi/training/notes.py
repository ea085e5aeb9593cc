"""The notes of a strategy on a client, from `prepare` to `result`: tensors that are made once."""

from __future__ import annotations

import torch
from torch import Tensor

from fedmpi.flat import FlatModel
from fedmpi.flow import Strategy


def notes_of(strategy: Strategy, flat: FlatModel, clients: tuple[int, ...] = ()) -> dict[str, Tensor]:
    """Return a strategy's declared notes by name, zeros `(n,)`, or `(K, n)` with `clients` `(K,)`.

    A "scalar" is one value in float64, a "model" or "trained" vector of the model's own type.
    """
    sizes = {"model": flat.size, "trained": flat.trained.stop - flat.shared.start, "scalar": 1}
    types = {"scalar": torch.float64}
    return {
        name: torch.zeros(*clients, sizes[kind], dtype=types.get(kind, flat.dtype), device=flat.device)
        for name, kind in strategy.notes.items()
    }
