"""q-FedAvg: clients with higher loss count more, for accuracy spread more evenly.

Li, Sanjabi, Beirami, Smith 2020, "Fair Resource Allocation in Federated Learning", algorithm 2, with the Lipschitz
constant L = 1 / local.lr.  Both of its sums are divided by L here, which leaves their quotient as it is.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from fedmpi.flow import Client, State
from fedmpi.job import Job, NonNegative
from fedmpi.strategies.refusals import plain_server
from fedmpi.strategies.strategy import ServerStep, Strategy


class QFedAvg(Strategy):
    """Fair averaging: updates count by loss to the power `q`; 0 is uniform federated averaging (Li et al. 2020)."""

    up = ("uniform",)
    sums: Mapping[str, str] = {"h": "uniform"}
    notes: Mapping[str, str] = {"objective": "scalar"}

    def __init__(self, server: ServerStep, q: NonNegative = 1.0) -> None:
        super().__init__(server)
        self.q = q

    def check(self, job: Job) -> Job:
        plain_server(job)
        return job

    def prepare(self, client: Client) -> None:
        if client.examples:
            client.notes["objective"].fill_(client.objective())

    def result(self, client: Client) -> Mapping[str, float]:
        client.change(client.planes[0])
        if not client.examples:
            return {"h": 0.0}
        update, objective = client.planes[0, client.trained], max(float(client.notes["objective"]), 1e-10)
        square, counts = float(client.square(update)), objective**self.q
        update.mul_(counts)
        return {"h": self.q * objective ** (self.q - 1) * square / client.lr + counts}

    def step(self, state: State, mean: Tensor, sums: Mapping[str, float]) -> None:
        if sums["h"] > 0:
            mean[0, self.layout.trained].div_(sums["h"])
        self.server.step(mean[0])
