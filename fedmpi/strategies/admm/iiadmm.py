"""IIADMM: inexact ADMM, dual variables updated alike on both sides, so only the primal ones travel.

The rule is by Ryu, Kim, Kim, Madduri 2022, "APPFL: Open-Source Software Framework for Privacy-Preserving Federated
Learning", as in its code: each round begins at the received w.  The inexact step and the several local updates are by
Ryu, Kim 2022, "Differentially Private Federated Learning via Inexact ADMM with Multiple Local Updates".  A client
contributes z_i - lambda_i / rho to the server's mean, and only the change travels; an absent client counts with the
value it sent last.  The step length is 1 / (rho + zeta): `local.lr` has no part.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from fedmpi.flow import Client, Learner, State
from fedmpi.job import Job, NonNegative, Positive
from fedmpi.strategies.refusals import own_steps, plain_server
from fedmpi.strategies.strategy import ServerStep, Strategy, mean_loss


class IIADMM(Strategy):
    """Inexact ADMM, the dual variables moving once a round (Ryu et al. 2022, APPFL).

    `rho` is the penalty on the distance to the received model.  `zeta` is the proximity: a step has length 1 / (`rho` +
    `zeta`).
    """

    up = ("none",)
    memory: Mapping[str, str] = {"dual": "trained", "sent": "model"}
    whole_update: ClassVar[bool] = True
    corrects: ClassVar[bool] = False  # its steps are its own
    batched: ClassVar[bool] = True

    def __init__(self, server: ServerStep, rho: Positive = 1.0, zeta: NonNegative = 10.0) -> None:
        super().__init__(server)
        self.rho, self.zeta = rho, zeta

    def check(self, job: Job) -> Job:
        plain_server(job)
        own_steps(job)
        return job

    def learn(self, client: Client, learner: Learner) -> None:
        z, w, dual = learner.values, client.received[client.trained], client.memory["dual"]
        losses = []
        for batch in learner.batches(client):
            losses.append((learner.gradient(client, batch), batch[1]))
            learner.grads.sub_(dual).sub_(w - z, alpha=self.rho)
            z.sub_(learner.grads, alpha=1 / (self.rho + self.zeta))
            client.steps += 1
        client.loss = mean_loss(losses)
        dual.add_(w - z, alpha=self.rho)

    def result(self, client: Client) -> Mapping[str, float]:
        return contribute(client, -1 / self.rho)

    def step(self, state: State, mean: Tensor, sums: Mapping[str, float]) -> None:
        state.planes[0].add_(mean[0], alpha=1 / self.everyone["uniform"])


def contribute(client: Client, share: float) -> Mapping[str, float]:
    """Send the change of z_i + share * lambda_i since this client sent it last."""
    sent = client.memory["sent"]
    client.change(client.planes[0], sent)
    client.planes[0, client.trained].add_(client.memory["dual"], alpha=share)
    sent.add_(client.planes[0])
    return {}
