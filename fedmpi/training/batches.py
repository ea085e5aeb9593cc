"""A client's batches: shuffled epoch by epoch, cut with one copy for many batches."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedmpi.flow import Task
from fedmpi.job import Local

BLOCK = 2**23  # bytes gathered, cast and moved at once: stays in a core's cache, and a step needs no copy of its own


def per_epoch(examples: int, batch: int, remainder: str = "keep") -> int:
    """Return the batches in one pass over so many examples; fewer than a batch make one, of them all."""
    batch = min(batch or examples, examples)
    if not examples:
        return 0
    return -(-examples // batch) if remainder == "keep" else examples // batch


def steps(examples: int, batch: int, epochs: int | None, wanted: int | None, remainder: str = "keep") -> int:
    """Return the steps of a client of so many examples: `wanted`, or `epochs` of its batches."""
    if wanted is not None:
        return wanted
    return (epochs or 1) * per_epoch(examples, batch, remainder)


def smallest(sizes: NDArray[np.int64], local: Local, wanted: int | None = None) -> NDArray[np.int64]:
    """Return the fewest examples in any batch of clients of `sizes (n,)` in `wanted` steps, in an epoch if None.

    0 where a client holds none.
    """
    batch = np.minimum(sizes, local.batch or sizes)
    left = sizes % np.maximum(batch, 1)
    if local.remainder == "merge":
        batch = np.where(sizes < 2 * batch, sizes, batch)
    meets = (left > 0) & (local.remainder == "keep")
    if wanted is not None:
        meets &= wanted > sizes // np.maximum(batch, 1)
    return np.where(meets, left, batch)


def work(sizes: NDArray[np.int64], local: Local) -> NDArray[np.int64]:
    """Return the examples of a round for clients of `sizes (n,)`, each counted as often as it is seen."""
    batch = np.minimum(sizes, local.batch or sizes)
    if local.steps is not None:  # a step costs a batch, whatever the client holds
        return local.steps * batch
    left = sizes % np.maximum(batch, 1) if local.remainder == "drop" else 0
    return (sizes - left) * (local.epochs or 1)


def batches(
    x: Tensor,
    y: Tensor,
    task: Task,
    batch: int,
    count: int,
    generator: torch.Generator,
    device: torch.device,
    remainder: str = "keep",
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield `count` batches `(inputs, y)` of stored columns, in a new order each epoch.

    The rest at the end of an epoch is a smaller batch ("keep"), is not seen until the next ("drop"), or
    makes the last batch larger ("merge").  Where one batch takes all examples there is no order to draw.
    """
    examples = len(y)
    batch = min(batch or examples, examples)
    if remainder == "merge" and examples < 2 * batch:
        batch = examples
    used = examples - examples % batch if remainder == "drop" else examples
    width = x[0].numel() * max(x.element_size(), 4)
    span = batch * max(1, BLOCK // (batch * width))
    edges = [*range(0, used, span), used]
    if remainder == "merge" and edges[-1] - edges[-2] < batch:
        del edges[-2]  # the last batch is cut whole
    while True:
        order = torch.randperm(examples, generator=generator) if batch < examples else None
        for start, stop in pairwise(edges):
            if order is None:
                part_x, part_y = x, y
            else:
                chosen = order[start:stop]
                part_x, part_y = x.index_select(0, chosen), y.index_select(0, chosen)
            inputs = task.inputs(part_x.to(device, non_blocking=True))
            targets = part_y.to(device, non_blocking=True)
            cut = _cut(stop - start, batch, remainder)
            for pair in zip(torch.split(inputs, cut), torch.split(targets, cut), strict=True):
                if count == 0:
                    return
                count -= 1
                yield pair
        if count == 0:
            return


def _cut(examples: int, batch: int, remainder: str) -> int | list[int]:
    """Return the sizes of a block's batches; with "merge" the last batch takes the rest."""
    if remainder != "merge":
        return batch
    return [batch] * (examples // batch - 1) + [batch + examples % batch]
