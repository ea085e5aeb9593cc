"""ICEADMM: inexact ADMM, the dual variables moving with every local step.

Zhou, Li 2021, "Communication-Efficient ADMM-based Federated Learning", in the form of the comparison by Ryu and Kim
2022, "Differentially Private Federated Learning via Inexact ADMM with Multiple Local Updates".  The primal variable
goes on from where the client left it; a rho too small for many local steps lets the dual run away.  The server's mean
is of z_i + lambda_i / rho, so one plane, its change, carries both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from fedmpi.flow import Client, Learner, State
from fedmpi.job import Job, NonNegative, Positive
from fedmpi.strategies.admm.iiadmm import contribute
from fedmpi.strategies.refusals import own_steps, plain_server
from fedmpi.strategies.strategy import ServerStep, Strategy, mean_loss


class ICEADMM(Strategy):
    """Inexact ADMM, the dual variables moving at every local step (Zhou and Li 2021).

    `rho` is the penalty on the distance to the received model.  `zeta` is the proximity: a step has length 1 / (`rho` +
    `zeta`).
    """

    up = ("none",)
    memory: Mapping[str, str] = {"primal": "model", "dual": "trained", "sent": "model"}
    whole_update: ClassVar[bool] = True
    corrects: ClassVar[bool] = False  # its steps are its own
    batched: ClassVar[bool] = True

    def __init__(self, server: ServerStep, rho: Positive = 5.0, zeta: NonNegative = 5.0) -> None:
        super().__init__(server)
        self.rho, self.zeta = rho, zeta

    def check(self, job: Job) -> Job:
        plain_server(job)
        own_steps(job)
        return job

    def learn(self, client: Client, learner: Learner) -> None:
        client.values.copy_(client.memory["primal"])
        z, w, dual = learner.values, client.received[client.trained], client.memory["dual"]
        losses = []
        for batch in learner.batches(client):
            losses.append((learner.gradient(client, batch), batch[1]))
            learner.grads.add_(dual).add_(z - w, alpha=self.rho)
            z.sub_(learner.grads, alpha=1 / (self.rho + self.zeta))
            dual.add_(z - w, alpha=self.rho)
            client.steps += 1
        client.loss = mean_loss(losses)

    def result(self, client: Client) -> Mapping[str, float]:
        client.memory["primal"].copy_(client.values)
        return contribute(client, 1 / self.rho)

    def step(self, state: State, mean: Tensor, sums: Mapping[str, float]) -> None:
        state.planes[0].add_(mean[0], alpha=1 / self.everyone["uniform"])
