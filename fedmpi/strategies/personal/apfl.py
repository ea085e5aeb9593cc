"""APFL: each client mixes the common model with one of its own, and learns how much of each.

Deng, Kamani, Mahdavi 2020, "Adaptive Personalized Federated Learning", algorithm 1.  alpha, the share of the own, moves
by equation 10 at the first step of a round, within [0, 1].
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from fedmpi.flow import Client, Learner
from fedmpi.job import Job
from fedmpi.strategies.refusals import own_steps
from fedmpi.strategies.strategy import ServerStep, Strategy, mean_loss


class APFL(Strategy):
    """A mixture of the common model and one of each client's own (Deng et al. 2020).

    `alpha` is the share of the own model, from 0 to 1.  `adapt` lets every client learn its alpha, beginning at
    `alpha`.
    """

    memory: Mapping[str, str] = {"own": "model", "moved": "scalar"}
    corrects: ClassVar[bool] = False  # its steps are its own
    batched: ClassVar[bool] = False  # a client's own share of the mixture is a number of the host

    def __init__(
        self, server: ServerStep, alpha: Annotated[float, Field(ge=0, le=1)] = 0.5, adapt: bool = True
    ) -> None:
        super().__init__(server)
        self.alpha, self.adapt = alpha, adapt

    def check(self, job: Job) -> Job:
        own_steps(job)
        return job

    def learn(self, client: Client, learner: Learner) -> None:
        w, v = client.values.clone(), client.memory["own"]
        trained, losses = client.trained, []
        for batch in learner.batches(client):
            losses.append((learner.gradient(client, batch), batch[1]))  # at w
            common = learner.grads.clone()
            w.copy_(client.values)  # with the statistics that this batch has moved
            client.values[trained].copy_(self._mixed(client, w[trained]))
            learner.gradient(client, batch)
            v[trained.stop :].copy_(client.values[trained.stop :])
            share = self._share(client)  # equation 10 moves it from the same point as v
            if self.adapt and not client.steps:
                slope = client.inner(v[trained] - w[trained], learner.grads)
                moved = (self.alpha + client.memory["moved"] - client.lr * slope).clamp(0.0, 1.0)
                client.memory["moved"].copy_(moved - self.alpha)
            v[trained].sub_(learner.grads, alpha=client.lr * share)
            w[trained].sub_(common, alpha=client.lr)
            client.values.copy_(w)
            client.steps += 1
        client.loss = mean_loss(losses)

    def _share(self, client: Client) -> float:
        return self.alpha + float(client.memory["moved"])

    def _mixed(self, client: Client, common: Tensor) -> Tensor:
        return torch.lerp(common, client.memory["own"][client.trained], self._share(client))

    def personal(self, client: Client, learner: Learner) -> None:
        if not client.fresh:
            client.values[client.trained].copy_(self._mixed(client, client.values[client.trained]))
            behind = slice(client.trained.stop, None)
            client.values[behind].copy_(client.memory["own"][behind])
