"""A check of a task's losses at work: they are its loss, example by example."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fedmpi.flow import Task, losses_of
from fedmpi.job import JobError

CLOSE = 1e-4  # of the losses' size: the two are added up in another order
WAY = "; `losses` should give the loss of each example by itself, or be left out"


def each(task: Task, loss: Tensor, outputs: Any, y: Tensor) -> None:
    """Refuse a task's `losses`, where it has any, unless they are its `loss` on this batch, example by example."""
    losses = losses_of(task)
    if losses is None:
        return
    examples = len(y)
    values = losses(outputs, y)
    batch = f"task: its losses of {examples} example{'s' * (examples != 1)}"
    if not isinstance(values, Tensor):
        raise JobError(f"{batch} are a {type(values).__name__}; they should be a tensor with a number for each")
    if values.shape != (examples,) or not values.is_floating_point():
        raise JobError(
            f"{batch} have shape {tuple(values.shape)} and type {str(values.dtype)[6:]}; they should be one floating "
            f"number for each, ({examples},)"
        )
    if values.requires_grad != loss.requires_grad:
        has, lacks = ("losses have", "loss has") if values.requires_grad else ("loss has", "losses have")
        raise JobError(f"task: its {has} a gradient, and its {lacks} none{WAY}")
    values, mean = values.detach(), values.detach().mean()
    if not _close(mean, loss.detach(), values):
        raise JobError(f"{batch} have the mean {mean.item():.6g}, and its loss is {loss.item():.6g}{WAY}")
    half = examples // 2
    if half and isinstance(outputs, Tensor) and len(outputs) == examples:
        with torch.no_grad():
            alone = losses(outputs[:half], y[:half])
        if not _close(values[:half], alone, values):
            raise JobError(f"{batch} are others where the first {half} are by themselves{WAY}")


def _close(one: Tensor, other: Tensor, values: Tensor) -> bool:
    """Return whether two tensors are alike, but for rounding, beside the size of all `values`."""
    near = max(CLOSE, 8 * torch.finfo(values.dtype).eps)
    size = values.abs().nan_to_num(0, 0, 0).mean().item()
    return one.shape == other.shape and torch.allclose(one, other.to(one.dtype), near, near * size, equal_nan=True)
