"""IFCA: several models, and each client trains the one with the least loss on its examples.

Ghosh, Chung, Yin, Ramchandran 2020, "An Efficient Framework for Clustered Federated Learning", algorithm 1 with model
averaging (option II).  All models travel, each from a seed of its own; a client's update lies in its cluster's plane.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field
from torch import Tensor

from fedmpi.flow import Client, Learner, State
from fedmpi.job import Job
from fedmpi.strategies.refusals import plain_server
from fedmpi.strategies.strategy import ServerStep, Strategy


class IFCA(Strategy):
    """Clustered federated averaging: a client trains the model with the least loss on its examples (Ghosh et al. 2020).

    `clusters` is the number of models, all of them sent to every client.
    """

    common: ClassVar[bool] = False
    notes: Mapping[str, str] = {"cluster": "scalar"}

    def __init__(self, server: ServerStep, clusters: Annotated[int, Field(ge=1, le=1000)] = 2) -> None:
        super().__init__(server)
        self.models = self.down = clusters
        self.up = ("job",) * clusters
        self.sums = {f"cluster-{place}": "job" for place in range(clusters)}

    def check(self, job: Job) -> Job:
        plain_server(job)
        return job

    def _nearest(self, client: Client) -> int:
        losses = []
        for model in client.down:
            client.values.copy_(model)
            losses.append(client.objective())
        nearest = int(np.argmin(np.nan_to_num(losses, nan=np.inf)))
        client.values.copy_(client.down[nearest])
        return nearest

    def prepare(self, client: Client) -> None:
        if client.examples:
            client.notes["cluster"].fill_(self._nearest(client))

    def result(self, client: Client) -> Mapping[str, float]:
        if not client.examples:
            return {}
        cluster = int(client.notes["cluster"])
        client.change(client.planes[cluster], client.down[cluster])
        return {f"cluster-{cluster}": 1.0}

    def personal(self, client: Client, learner: Learner) -> None:
        self._nearest(client)

    def step(self, state: State, mean: Tensor, sums: Mapping[str, float]) -> None:
        for place, model in enumerate(state.planes):
            came = sums[f"cluster-{place}"]
            if came > 0:
                model.add_(mean[place], alpha=self.server.lr / came)
