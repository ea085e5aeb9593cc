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
    batched: ClassVar[bool] = True

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
        behind = slice(trained.stop, None)
        for batch in learner.batches(client):
            losses.append((learner.gradient(client, batch), batch[1]))  # at w
            common = learner.grads.clone()
            w.copy_(client.values)  # with the statistics that this batch has moved
            client.values[..., trained].copy_(self._mixed(client, w[..., trained]))
            learner.gradient(client, batch)
            v[..., behind].copy_(client.values[..., behind])
            share = self.alpha + client.memory["moved"]  # equation 10 moves it from the same point as v
            if self.adapt and len(losses) == 1:
                slope = client.inner(v[..., trained] - w[..., trained], learner.grads)[..., None]
                moved = (share - client.lr * slope).clamp(0.0, 1.0)
                client.memory["moved"].copy_(moved - self.alpha)
            v[..., trained].addcmul_(learner.grads, share, value=-client.lr)
            w[..., trained].sub_(common, alpha=client.lr)
            client.values.copy_(w)
            client.steps += 1
        client.loss = mean_loss(losses)

    def _mixed(self, client: Client, common: Tensor) -> Tensor:
        return torch.lerp(common, client.memory["own"][..., client.trained], self.alpha + client.memory["moved"])

    def personal(self, client: Client, learner: Learner) -> None:
        if not client.fresh:
            client.values[client.trained].copy_(self._mixed(client, client.values[client.trained]))
            behind = slice(client.trained.stop, None)
            client.values[behind].copy_(client.memory["own"][behind])
