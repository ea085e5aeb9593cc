"""FedExP: the more clients' updates disagree, the further the server may go along their mean.

Jhunjhunwala, Wang, Joshi 2023, "FedExP: Speeding Up Federated Averaging via Extrapolation", equation 8.  The paper
reports the mean of the last two models; this is the last one.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from fedmpi.flow import Client, State, norms
from fedmpi.job import Job, Positive
from fedmpi.strategies.refusals import plain_server
from fedmpi.strategies.strategy import ServerStep, Strategy


class FedExP(Strategy):
    """Federated averaging with an extrapolated server step (Jhunjhunwala et al. 2023).

    The step is max(1, mean squared norm / (2 (squared norm of the mean + `eps`))) times the mean update.
    """

    sums: Mapping[str, str] = {"square": "job"}

    def __init__(self, server: ServerStep, eps: Positive = 1e-3) -> None:
        super().__init__(server)
        self.eps = eps

    def check(self, job: Job) -> Job:
        plain_server(job)
        return job

    def result(self, client: Client) -> Mapping[str, float]:
        client.change(client.planes[0])
        return {"square": float(client.square(client.planes[0, client.trained]))}

    def step(self, state: State, mean: Tensor, sums: Mapping[str, float]) -> None:
        update = mean[0, self.layout.trained]
        update.mul_(max(1.0, sums["square"] / (2 * (float(norms.square(update)) + self.eps))))
        self.server.step(mean[0])
