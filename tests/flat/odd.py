"""A layer that does what user code does to its tensors, for the tests of what a flat model makes of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import fedmpi

Change = Callable[[nn.Module, Tensor], None]


class Odd(nn.Module):
    """A linear layer of its own around which `change(self, x)` does what user code does, before the product."""

    def __init__(self, change: Change, features: int = 6, outputs: int = 3) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, features))
        self.frozen = nn.Parameter(torch.ones(features), requires_grad=False)
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self.register_buffer("seen", torch.zeros(features), persistent=False)
        self.register_buffer("idle", torch.zeros(4))
        self.register_buffer("steps", torch.tensor(0))
        self.register_buffer("begun", torch.tensor(False))
        self.register_buffer("ready", torch.tensor(True))
        self.register_buffer("state", torch.tensor(0, dtype=torch.uint8))
        self.change, self.built = change, False

    def forward(self, x: Tensor) -> Tensor:
        self.change(self, x)
        return ((x - self.mean) * self.scale * self.frozen) @ self.weight.T


def training(change: Change) -> Change:
    return lambda self, x: change(self, x) if self.training else None


def quietly(change: Change) -> Change:
    return torch.no_grad()(change)


def count(self: Any, x: Tensor) -> None:
    self.steps = self.steps + 1


def whole(run: fedmpi.Run) -> dict[str, Tensor]:
    return run.model.state_dict()


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def make(change: Change) -> Callable[..., nn.Module]:
    return lambda shape, outputs: Odd(change, *shape, outputs)
