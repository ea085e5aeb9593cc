"""FedDyn: a regulariser renewed every round lets clients' optima agree with everybody's.

Acar, Zhao, Matas, Mattina, Whatmough, Saligrama 2021, "Federated Learning Based on Dynamic Regularization", algorithm
1.  Clients count alike; h is the server's, each client keeps its own gradient.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from fedmpi.flow import Client, Layout, State
from fedmpi.job import Job, Positive
from fedmpi.strategies.refusals import plain_server
from fedmpi.strategies.strategy import ServerStep, Strategy


class FedDyn(Strategy):
    """Dynamic regularisation with weight `alpha` in every client's loss (Acar et al. 2021)."""

    up = ("uniform",)
    memory: Mapping[str, str] = {"gradient": "trained"}
    batched: ClassVar[bool] = True

    def __init__(self, server: ServerStep, alpha: Positive = 0.01) -> None:
        super().__init__(server)
        self.alpha = alpha

    def check(self, job: Job) -> Job:
        plain_server(job)
        return job

    def begin(self, state: State, layout: Layout, everyone: Mapping[str, float]) -> None:
        super().begin(state, layout, everyone)
        self.vectors = {"h": self.zeros(state)}

    def correct(self, grads: Tensor, values: Tensor, received: Tensor, client: Client) -> None:
        grads.sub_(client.memory["gradient"]).add_(values - received, alpha=self.alpha)

    def result(self, client: Client) -> Mapping[str, float]:
        client.change(client.planes[0])
        client.memory["gradient"].sub_(client.planes[0, client.trained], alpha=self.alpha * client.times)  # as h counts
        return {}

    def step(self, state: State, mean: Tensor, sums: Mapping[str, float]) -> None:
        h, update = self.vectors["h"], mean[0, self.layout.trained]
        h.sub_(update, alpha=self.alpha * self.share(0, sums))
        update.sub_(h, alpha=1 / self.alpha)
        self.server.step(mean[0])
