"""A client's loss and gradient over all its examples at once, taken in chunks; the model is then as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from fedmpi.flat import FlatModel
from fedmpi.flow import Task

CHUNK = 1024  # examples taken at once: memory stays flat however large the client


def whole_gradient(
    flat: FlatModel, task: Task, x: Tensor, y: Tensor, differentiate: Callable[[Tensor], list[Tensor]]
) -> tuple[Tensor, float]:
    """Return the mean gradient `(values[trained],)` over columns `x`, `y` at `flat.values`, and the mean loss.

    Buffers (BatchNorm's statistics) are left as they were; `flat.grads` is used up.
    """
    total, seen = torch.zeros_like(flat.grads), torch.zeros((), dtype=torch.float64, device=flat.device)
    with torch.enable_grad(), flat.aside():
        for inputs, targets in _chunks(flat, task, x, y):
            loss = task.loss(flat.model(inputs), targets)
            gradients = differentiate(loss)
            with torch.no_grad():
                seen += loss.double() * len(targets)
                flat.write(gradients)
                total.add_(flat.grads, alpha=len(targets) / len(y))
    return total, float(seen) / max(1, len(y))


@torch.no_grad()
def whole_loss(flat: FlatModel, task: Task, x: Tensor, y: Tensor) -> float:
    """Return the mean loss over columns `x`, `y` of the model as it is used (no dropout); NaN of no examples."""
    seen = torch.zeros((), dtype=torch.float64, device=flat.device)
    training = flat.model.training
    flat.model.eval()
    with flat.aside():
        for inputs, targets in _chunks(flat, task, x, y):
            seen += task.loss(flat.model(inputs), targets).double() * len(targets)
    flat.model.train(training)
    return float(seen) / len(y) if len(y) else float("nan")


def _chunks(flat: FlatModel, task: Task, x: Tensor, y: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    for part_x, part_y in zip(torch.split(x, CHUNK), torch.split(y, CHUNK), strict=True):
        targets = part_y.to(flat.device)
        yield task.inputs(part_x.to(flat.device)), targets
