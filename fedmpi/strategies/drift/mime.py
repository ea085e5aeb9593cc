"""Mime: clients step with the server's momentum, on variance-reduced gradients.

Karimireddy, Jaggi, Kale, Mohri, Reddi, Stich, Suresh 2021, "Breaking the Centralized Barrier for Cross-Device Federated
Learning", algorithm 1.  A round has two crossings: the cohort's gradients at the received model come first, and their
mean c goes down with the model and the statistics; a step's gradient is then g(y) - g(x) + c on the same batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from fedmpi.flow import Client, Learner, State
from fedmpi.job import Job, Positive
from fedmpi.strategies.drift.mimelite import Base, Statistics
from fedmpi.strategies.refusals import own_steps
from fedmpi.strategies.strategy import Decay, ServerStep, Strategy, mean_loss


class Mime(Strategy):
    """Local steps with the server's statistics and variance-reduced gradients (Karimireddy et al. 2021).

    `base` is the optimiser: "momentum" or "adam".  `beta` is the decay of the momentum, `beta2` that of adam's squared
    gradients.  `eps` is added to the root of adam's squares.
    """

    corrects: ClassVar[bool] = False  # its steps are its own
    batched: ClassVar[bool] = True

    def __init__(
        self, server: ServerStep, base: Base = "momentum", beta: Decay = 0.9, beta2: Decay = 0.99, eps: Positive = 1e-3
    ) -> None:
        super().__init__(server)
        self.statistics = Statistics(base, beta, beta2, eps)
        self.down = 2 + self.statistics.planes  # the model, c, the statistics

    def check(self, job: Job) -> Job:
        own_steps(job)
        return job

    def survey(self, client: Client) -> Mapping[str, float]:
        if client.examples:
            client.planes[0, client.trained].copy_(client.gradient())
        return {}

    def learn(self, client: Client, learner: Learner) -> None:
        received, statistics = client.received[client.trained], client.down[2:, client.trained]
        losses = []
        for batch in learner.batches(client):
            here = learner.values.clone()
            losses.append((learner.gradient(client, batch), batch[1]))
            gradient = learner.grads.clone()
            learner.values.copy_(received)
            learner.gradient(client, batch, again=True)
            gradient.sub_(learner.grads).add_(client.down[1, client.trained])
            self.statistics.use(gradient, statistics)
            learner.values.copy_(here).sub_(gradient, alpha=client.lr)
            client.steps += 1
        client.loss = mean_loss(losses)

    def step(self, state: State, mean: Tensor, sums: Mapping[str, float]) -> None:
        trained = self.layout.trained
        if state.crossing == 0:
            state.planes[1, trained].copy_(mean[0, trained])
        else:
            self.statistics.renew(state.planes[2:, trained], state.planes[1, trained])
            self.server.step(mean[0])
