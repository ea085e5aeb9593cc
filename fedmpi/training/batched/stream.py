"""The batches of several clients side by side, each client's as it would have them alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedmpi.flow import Task
from fedmpi.training.batches import BLOCK

PIECE = 2**20  # bytes made inputs at once: they stay in the cache until their step


@dataclass(frozen=True)
class Batches:
    """One step's batches of K clients: `inputs` `(K, B, ...)` and `targets`, of which the first `counts` `(K,)` count.

    `weights` `(K, B)` are 1 / count on these, and 0 on the others.
    """

    inputs: Tensor
    targets: Tensor
    weights: Tensor
    active: Tensor  # (K,) 1 for a client with a batch, 0 for one that is through
    counts: NDArray[np.int64]


def order(
    examples: int, batch: int, steps: int, remainder: str, generator: torch.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the examples of a client's batches `(steps, batch)`, and how many of each batch count `(steps,)`.

    They come in the order of `training.batches`; behind those that count an example is repeated.
    """
    size = min(batch, examples)
    used = examples - examples % size if remainder == "drop" else examples
    epoch = -(-used // size)
    chosen, counts = np.zeros((0, batch), np.int64), np.zeros(0, np.int64)
    while len(counts) < steps:
        one = torch.randperm(examples, generator=generator).numpy() if size < examples else np.arange(examples)
        padded = np.full(epoch * size, one[0])
        padded[:used] = one[:used]
        rows = np.repeat(padded.reshape(epoch, size)[:, :1], batch, axis=1)
        rows[:, :size] = padded.reshape(epoch, size)
        here = np.full(epoch, size)
        here[-1] = used - (epoch - 1) * size
        chosen, counts = np.concatenate([chosen, rows]), np.concatenate([counts, here])
    return chosen[:steps], counts[:steps]


def stream(
    columns: Sequence[tuple[Tensor, Tensor]],
    orders: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]],
    task: Task,
    batch: int,
    device: torch.device,
    dtype: torch.dtype,
) -> Iterator[Batches]:
    """Yield every step's batches, until the last client is through; one that is through before counts no more."""
    steps = max(len(counts) for _, counts in orders)
    counts = np.zeros((steps, len(columns)), np.int64)
    for row, (_, own) in enumerate(orders):
        counts[: len(own), row] = own
    width = columns[0][0][0].numel() * max(columns[0][0].element_size(), 4)
    one = len(columns) * batch * width  # bytes of a step
    span, piece = max(1, BLOCK // one), max(1, PIECE // one)
    weights = torch.from_numpy((np.arange(batch) < counts[:, :, None]) / np.maximum(counts, 1)[:, :, None])
    weights = weights.to(device, dtype)
    active = torch.from_numpy(counts > 0).to(device, dtype)
    for start in range(0, steps, span):
        stop = min(start + span, steps)
        x, y = (side.to(device, non_blocking=True) for side in _gathered(columns, orders, slice(start, stop), batch))
        for first in range(start, stop, piece):
            some = x[first - start :][:piece]
            inputs = task.inputs(some.flatten(0, 2))
            inputs = inputs.view(*some.shape[:3], *inputs.shape[1:])
            for step in range(first, min(first + piece, stop)):
                yield Batches(inputs[step - first], y[step - start], weights[step], active[step], counts[step])


def _gathered(
    columns: Sequence[tuple[Tensor, Tensor]],
    orders: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]],
    some: slice,
    batch: int,
) -> list[Tensor]:
    """Return the examples `(steps, K, B, ...)` and targets of some steps, as stored; zeros behind a client's last."""
    shape = (some.stop - some.start, len(columns), batch)
    sides = [torch.empty(*shape, *column.shape[1:], dtype=column.dtype) for column in columns[0]]
    for row, (pair, (chosen, _)) in enumerate(zip(columns, orders, strict=True)):
        take = torch.from_numpy(chosen[some].reshape(-1))
        steps = len(take) // batch
        for column, side in zip(pair, sides, strict=True):
            examples = column.index_select(0, take).view(steps, *side.shape[2:])
            if steps == len(side):
                side.select(1, row).copy_(examples)
            else:
                side[:steps, row] = examples
                side[steps:, row] = 0
    return sides
