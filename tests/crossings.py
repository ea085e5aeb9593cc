"""Passages and updates for paths that are tried without a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedmpi.aggregation import Path
from fedmpi.flow import Layout, Passage


def passage_of(
    layout: Layout, examples: Sequence[int] | NDArray[np.int64] | int, times: int = 1, round: int = 1, **others: Any
) -> Passage:
    """A crossing of clients 0, 1, ... with so many `examples` each; of one client where a number is given."""
    sizes = np.array([examples] if isinstance(examples, int) else examples, np.int64)
    clients = np.arange(len(sizes), dtype=np.int64)
    return Passage(round, layout, clients, sizes, np.full(len(sizes), times, np.int64), **others)


def one(passage: Passage, place: int) -> Passage:
    """The same crossing for the client at a place."""
    return passage.of(slice(place, place + 1))


def add(path: Path, wire: Tensor, passage: Passage, place: int = 0) -> list[int]:
    """Enter the wire `(width,)` of the client at a place; its reason and place of fault, zeros where it entered."""
    [fault] = path.add(wire[None], one(passage, place)).tolist()
    reasons: list[int] = fault
    return reasons


def tally(*numbers: float) -> Tensor:
    """A rank's tally."""
    return torch.tensor(numbers or (0.0,), dtype=torch.float64)
