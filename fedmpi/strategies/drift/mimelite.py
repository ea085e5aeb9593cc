"""MimeLite: clients step with the server's momentum and leave it as it is.

Karimireddy, Jaggi, Kale, Mohri, Reddi, Stich, Suresh 2021, "Breaking the Centralized Barrier for Cross-Device Federated
Learning" (Mime), algorithm 1 without the dashed boxes.  The statistics s come down behind the model; the gradients at
the received model, from which the server makes the next s, go up behind the update.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from torch import Tensor

from fedmpi.flow import Client, State
from fedmpi.job import Job, Positive
from fedmpi.strategies.refusals import plain_steps
from fedmpi.strategies.strategy import Decay, ServerStep, Strategy

Base = Literal["momentum", "adam"]


class Statistics:
    """A base optimiser as Mime takes it apart: U uses the statistics in a client's step, V renews them at the server.

    "momentum": U = (1 - beta) g + beta m; V: m <- (1 - beta) c + beta m.  "adam" divides by sqrt(v) + eps, and V renews
    v by beta2 in the same way (there is no bias correction in the paper's table 1).
    """

    def __init__(self, base: Base, beta: float, beta2: float, eps: float) -> None:
        self.planes = 2 if base == "adam" else 1
        self.beta, self.beta2, self.eps = beta, beta2, eps

    def use(self, grads: Tensor, statistics: Tensor) -> None:
        """Apply U in place: `grads` `(trained,)` by `statistics` `(planes, trained)`."""
        grads.mul_(1 - self.beta).add_(statistics[0], alpha=self.beta)
        if self.planes == 2:
            grads.div_(statistics[1].sqrt().add_(self.eps))

    def renew(self, statistics: Tensor, gradient: Tensor) -> None:
        """Apply V in place: `statistics` `(planes, trained)` by the mean `gradient` `(trained,)`."""
        statistics[0].lerp_(gradient, 1 - self.beta)
        if self.planes == 2:
            statistics[1].mul_(self.beta2).addcmul_(gradient, gradient, value=1 - self.beta2)


class MimeLite(Strategy):
    """Local steps with the server's momentum or Adam statistics (Karimireddy et al. 2021).

    `base` is the optimiser: "momentum" or "adam".  `beta` is the decay of the momentum, `beta2` that of adam's squared
    gradients.  `eps` is added to the root of adam's squares.
    """

    up = ("job", "job")
    notes: Mapping[str, str] = {"gradient": "trained"}
    batched: ClassVar[bool] = True

    def __init__(
        self, server: ServerStep, base: Base = "momentum", beta: Decay = 0.9, beta2: Decay = 0.99, eps: Positive = 1e-3
    ) -> None:
        super().__init__(server)
        self.statistics = Statistics(base, beta, beta2, eps)
        self.down = 1 + self.statistics.planes

    def check(self, job: Job) -> Job:
        plain_steps(job)
        return job

    def prepare(self, client: Client) -> None:
        if client.examples:
            client.notes["gradient"].copy_(client.gradient())

    def correct(self, grads: Tensor, values: Tensor, received: Tensor, client: Client) -> None:
        self.statistics.use(grads, client.down[1:, client.trained])

    def result(self, client: Client) -> Mapping[str, float]:
        client.change(client.planes[0])
        if client.examples:
            client.planes[1, client.trained].copy_(client.notes["gradient"])
        return {}

    def step(self, state: State, mean: Tensor, sums: Mapping[str, float]) -> None:
        trained = self.layout.trained
        self.statistics.renew(state.planes[1:, trained], mean[1, trained])
        self.server.step(mean[0])
