"""A model's outputs of many examples, batch after batch, with nothing about the model changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from fedmpi.flow import Task


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Hold a model in `eval()` without gradients; afterwards each module has its own mode back (some may be frozen)."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


def outputs(model: nn.Module, task: Task, x: Tensor, batch: int, device: torch.device | str) -> Iterator[Tensor]:
    """Yield the model's outputs, on `device`, of each `batch` of stored columns `x` `(N, ...)` on the host."""
    for part in torch.split(x, batch):
        yield model(task.inputs(part.to(device, non_blocking=True)))
