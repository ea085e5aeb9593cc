"""One client while a rank serves it, and the engine at work for it, as a strategy sees them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedmpi.flow import norms
from fedmpi.flow.protocols import Task

Batch = tuple[Tensor, Tensor]  # inputs and targets, on the model's device
Number = Any  # a number of one client, or an array (K,) of several
Rule = Callable[[Tensor, Tensor, Tensor, "Client"], None]  # changes a step's gradient in place


@dataclass
class Client:
    """One client while a rank serves it, for a strategy's rules to read and change.

    Vectors lie on the model's device.  `trained` is the slice of them changed by training; buffers lie behind it.

    In `learn`, `correct` and `loss` it may stand for K clients that learn together: `values`, `planes`, and each tensor
    of `memory` and `notes` then have K rows in front, a scalar `(K, 1)` among them; `index`, `examples`, `times`,
    `steps`, `reach`, `loss` and `fresh` are arrays `(K,)`.  What was sent (`down`, `said`) and `lr` are all clients'.
    So rules are written on the last axis: `values[..., trained]`.  `prepare`, `survey` and `result` see one client.
    """

    index: Number
    examples: Number
    round: int
    crossing: int
    lr: float
    trained: slice
    values: Tensor  # (size,) the travelling part of the model in training
    down: Tensor  # (down, size) the planes of the broadcast; the first is the model
    said: NDArray[np.float64]  # (SAID,) the broadcast's scalars of the strategy
    planes: Tensor  # (up, size) the planes for the strategy's result
    gradient: Callable[[], Tensor]  # (trained,) mean gradient over all its examples, at `values`
    objective: Callable[[], float]  # mean loss over all its examples, at `values`
    memory: dict[str, Tensor]  # its tensors from round to round, to be changed in place
    named: Callable[[Tensor], dict[str, Tensor]]  # the model's tensors by name, as views of a vector `(size,)`
    times: Number = 1  # the number of times it was drawn, which multiplies its weight
    fresh: Number = True  # it has never taken part: its memory is as it begins
    steps: Number = 0
    reach: Number = 0.0  # how far its steps go along a constant gradient of 1, in units of lr: `steps` without momentum
    loss: Number = float("nan")  # mean training loss, as far as it is known
    notes: dict[str, Tensor] = field(default_factory=dict)  # a strategy's own, from `prepare` to `result`

    @property
    def received(self) -> Tensor:
        """The model as the round began `(size,)`."""
        return self.down[0]

    def norm(self, vector: Tensor) -> Tensor:
        """Return the L2 norm `(...,)` of vectors of trained values `(..., trained)`."""
        return norms.norm(vector)

    def square(self, vector: Tensor) -> Tensor:
        """Return the squared L2 norm `(...,)` of vectors of trained values `(..., trained)`."""
        return norms.square(vector)

    def inner(self, one: Tensor, other: Tensor) -> Tensor:
        """Return the inner product `(...,)` of vectors of trained values `(..., trained)`."""
        return norms.inner(one, other)

    def change(self, plane: Tensor, since: Tensor | None = None) -> None:
        """Write values minus `since` `(size,)` (the received model where None) into a plane `(size,)`.

        An unchanged buffer value counts as 0, even if infinite or NaN, as in a causal mask.
        """
        origin = self.received if since is None else since
        torch.sub(self.values, origin, out=plane)
        if self.trained.stop < plane.shape[-1]:
            behind = slice(self.trained.stop, None)
            now, before = self.values[..., behind], origin[..., behind]
            plane[..., behind].masked_fill_((now == before) | (now.isnan() & before.isnan()), 0.0)


class Learner(Protocol):
    """The engine as a strategy sees it while a client learns: the model at `values`, and the client's batches.

    Where K clients learn together `values` and `grads` are `(K, trained)`, a batch `(K, N, ...)` and its loss `(K,)`.
    """

    model: nn.Module
    task: Task
    values: Tensor  # (trained,) the model's trained values, the private ones in front
    grads: Tensor  # (trained,) the last gradient
    private: int  # the number of them that stay with the client

    def train(self, client: Client, correct: Rule | None = None, steps: int | None = None) -> None:
        """Run the job's local loop from `values`, over the client's batches from the first, with a fresh optimiser.

        Its steps are added to the client's; the first loop's loss is the client's.
        """
        ...

    def batches(self, client: Client, steps: int | None = None) -> Iterator[Batch]:
        """Yield the client's batches of the round from their beginning: `steps` of them (the job's where None)."""
        ...

    def steps(self, client: Client) -> int:
        """Return the job's number of steps for a client in a round."""
        ...

    def gradient(self, client: Client, batch: Batch, again: bool = False) -> Tensor:
        """Return a batch's loss at `values`, a scalar; its gradient, with the job's penalties, is in `grads`.

        `again`: the same batch at other values, with the same dropout; statistics of batches stay as they are.
        """
        ...

    def named(self, vector: Tensor) -> dict[str, Tensor]:
        """Return the model's tensors by name, as views of a vector `(size,)` laid out like the wire's planes."""
        ...
