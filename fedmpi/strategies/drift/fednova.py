"""FedNova: updates are counted per step, so no client pulls the model its way by taking more steps.

Wang, Liu, Liang, Joshi, Poor 2020, "Tackling the Objective Inconsistency Problem in Heterogeneous Federated
Optimization", equation 7: the mean of updates per unit of accumulated steps, times the mean of those units.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from fedmpi.flow import Client, State
from fedmpi.job import Job
from fedmpi.strategies.refusals import plain_steps
from fedmpi.strategies.strategy import Strategy


class FedNova(Strategy):
    """Normalised averaging of clients with different numbers of steps, momentum included (Wang et al. 2020)."""

    sums: Mapping[str, str] = {"reach": "job"}

    def check(self, job: Job) -> Job:
        plain_steps(job, momentum=True)
        return job

    def result(self, client: Client) -> Mapping[str, float]:
        client.change(client.planes[0])
        if client.reach:
            client.planes[0, client.trained].div_(client.reach)
        return {"reach": client.reach}

    def step(self, state: State, mean: Tensor, sums: Mapping[str, float]) -> None:
        mean[0, self.layout.trained].mul_(sums["reach"])
        self.server.step(mean[0])
