"""The batches that a client learns from: shuffled epoch by epoch, cut with one copy for many batches."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from fedmpi.flow import Task

BLOCK = 2**23  # bytes gathered, cast and moved at once: stays in a core's cache, and a step needs no copy of its own


def steps(examples: int, batch: int, epochs: int | None, wanted: int | None) -> int:
    """Steps that a client of so many examples takes: `wanted`, or what its `epochs` of batches come to."""
    if wanted is not None:
        return wanted
    return (epochs or 1) * -(-examples // (batch or examples))


def batches(
    x: Tensor, y: Tensor, task: Task, batch: int, count: int, generator: torch.Generator, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """`count` batches `(inputs, y)` of stored columns, a new order each epoch; the last of an epoch may be smaller.

    Where one batch takes all examples there is no order to draw.
    """
    examples = len(y)
    batch = min(batch or examples, examples)
    width = x[0].numel() * max(x.element_size(), 4)
    span = batch * max(1, BLOCK // (batch * width))
    while True:
        order = torch.randperm(examples, generator=generator) if batch < examples else None
        for start in range(0, examples, span):
            if order is None:
                part_x, part_y = x, y
            else:
                chosen = order[start : start + span]
                part_x, part_y = x.index_select(0, chosen), y.index_select(0, chosen)
            inputs = task.inputs(part_x.to(device, non_blocking=True))
            targets = part_y.to(device, non_blocking=True)
            for pair in zip(torch.split(inputs, batch), torch.split(targets, batch), strict=True):
                if count == 0:
                    return
                count -= 1
                yield pair
        if count == 0:
            return
