"""What every strategy shares: five short methods, most left as they are, and the server's optimiser."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from fedmpi.flow import Client, State, Task
from fedmpi.job import Job
from fedmpi.optim import Maker, Optimizer


class Server:
    """The server's step: an optimiser of torch's whose gradient is the mean update's opposite (Reddi et al. 2021).

    It lives at home alone, over the first plane of the state.  Floating buffers behind what is trained are averaged:
    an optimiser that adapts would make a variance negative.
    """

    def __init__(self, optimizer: Maker, lr: float) -> None:
        self.make, self.lr = optimizer, lr
        self.optimizer: Optimizer | None = None

    def begin(self, state: State, trained: slice) -> None:
        """Take hold of the state's first plane."""
        self.values, self.trained = state.planes[0], trained
        self.optimizer = self.make(self.values[trained], self.lr)

    def step(self, mean: Tensor) -> None:
        """Move the model by the mean update `(size,)`, which is used up."""
        assert self.optimizer is not None
        self.values[self.trained.stop :].add_(mean[self.trained.stop :])
        change = mean[self.trained]
        if self.optimizer.plain:
            self.values[self.trained].add_(change, alpha=self.lr)
        else:
            self.optimizer.step(change.neg_())

    def state(self) -> dict[str, Tensor]:
        return {} if self.optimizer is None else self.optimizer.state()

    def load(self, state: dict[str, Tensor]) -> None:
        assert self.optimizer is not None
        self.optimizer.load(state)


class Strategy:
    """Federated averaging, unless a method says otherwise; `up` and `sums` name each plane's and sum's weighting.

    A weighting is "job" (what `aggregation.weights` says), "examples", "uniform" or "none" (added, never divided).
    """

    down: ClassVar[int] = 1  # planes that a broadcast carries
    up: ClassVar[tuple[str, ...]] = ("job",)  # planes that an update carries
    sums: ClassVar[Mapping[str, str]] = {}  # the strategy's scalars beside them
    learns: ClassVar[bool] = True  # a client's learning is a loop of corrected steps
    corrects: ClassVar[bool] = False  # `correct` does something

    def __init__(self, server: Server) -> None:
        self.server = server

    def check(self, job: Job) -> None:
        """Raise JobError where the rest of the job cannot go with this strategy."""

    def prepare(self, client: Client) -> None:
        """Before a client's first step."""

    def loss(self, task: Task, outputs: Tensor, y: Tensor, client: Client) -> Tensor:
        """A batch's loss, a scalar: the task's."""
        return task.loss(outputs, y)

    def correct(self, grads: Tensor, values: Tensor, received: Tensor, client: Client) -> None:
        """Change a step's gradient `(..., trained)` in place."""

    def result(self, client: Client) -> Mapping[str, Tensor | float]:
        """Write the client's planes; return its sums.  The plane: trained values minus received values."""
        torch.sub(client.values, client.received, out=client.planes[0])
        return {}

    def step(self, state: State, mean: Tensor, sums: Mapping[str, float]) -> None:
        """At home: move `state` by the mean planes `(up, size)`, which are used up."""
        self.server.step(mean[0])
