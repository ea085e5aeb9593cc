"""FedAdam: the server's steps are scaled by running means of the update and of its square.

Reddi, Charles, Zaheer, Garrett, Rush, Konecny, Kumar, McMahan 2021, "Adaptive Federated Optimization", algorithm 2.
Unlike torch's Adam there is no bias correction, v begins at tau squared, and tau is as large as the paper has it.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from fedmpi.flow import Layout, State
from fedmpi.job import Job
from fedmpi.strategies.strategy import Decay, Positive, Server, Strategy, plain_server


class FedAdam(Strategy):
    """Adam at the server, on the mean update, without bias correction (Reddi et al. 2021, algorithm 2).

    `beta1` is the decay of the running mean of updates, `beta2` that of their squares.  `tau` is added to the root of
    the squares, and its square is their start.
    """

    def __init__(self, server: Server, beta1: Decay = 0.9, beta2: Decay = 0.99, tau: Positive = 1e-3) -> None:
        super().__init__(server)
        self.beta1, self.beta2, self.tau = beta1, beta2, tau

    def check(self, job: Job) -> None:
        plain_server(job)

    def begin(self, state: State, layout: Layout, everyone: Mapping[str, float]) -> None:
        super().begin(state, layout, everyone)
        self.kept = {"m": self.zeros(state), "v": self.zeros(state).fill_(self.tau**2)}

    def step(self, state: State, mean: Tensor, sums: Mapping[str, float]) -> None:
        m, v, update = self.kept["m"], self.kept["v"], self.server.average(mean[0])
        m.lerp_(update, 1 - self.beta1)
        v.mul_(self.beta2).addcmul_(update, update, value=1 - self.beta2)
        state.planes[0, self.layout.trained].addcdiv_(m, v.sqrt().add_(self.tau), value=self.server.lr)
