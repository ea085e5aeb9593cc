"""FedAdagrad, FedAdam and FedYogi: the server's steps are scaled by a running mean of updates and of their squares.

Reddi, Charles, Zaheer, Garrett, Rush, Konecny, Kumar, McMahan 2021, "Adaptive Federated Optimization", algorithm 2.
Unlike torch's Adagrad and Adam they have no bias correction, FedAdagrad has momentum, v begins at tau squared, and tau
is added to the root and as large as in the paper.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from fedmpi.flow import Layout, State
from fedmpi.job import Job, Positive
from fedmpi.strategies.refusals import plain_server
from fedmpi.strategies.strategy import Decay, ServerStep, Strategy


class Adaptive(Strategy):
    """Algorithm 2: `second(v, update)` renews the running mean of squares in place, both `(trained,)`."""

    def __init__(
        self, server: ServerStep, beta1: float, tau: float, second: Callable[[Tensor, Tensor], object]
    ) -> None:
        super().__init__(server)
        self.beta1, self.tau, self.second = beta1, tau, second

    def check(self, job: Job) -> Job:
        plain_server(job)
        return job

    def begin(self, state: State, layout: Layout, everyone: Mapping[str, float]) -> None:
        super().begin(state, layout, everyone)
        self.vectors = {"m": self.zeros(state), "v": self.zeros(state).fill_(self.tau**2)}

    def step(self, state: State, mean: Tensor, sums: Mapping[str, float]) -> None:
        m, v, update = self.vectors["m"], self.vectors["v"], self.server.average(mean[0])
        m.lerp_(update, 1 - self.beta1)
        self.second(v, update)
        state.planes[0, self.layout.trained].addcdiv_(m, v.sqrt().add_(self.tau), value=self.server.lr)


def fedadagrad(server: ServerStep, beta1: Decay = 0.0, tau: Positive = 1e-3) -> Strategy:
    """AdaGrad at the server, on the mean update (Reddi et al. 2021, algorithm 2).

    `beta1` is the decay of the running mean of updates, its momentum.  `tau` is added to the root of the squares, and
    its square is their start.
    """
    return Adaptive(server, beta1, tau, lambda v, update: v.addcmul_(update, update))


def fedadam(server: ServerStep, beta1: Decay = 0.9, beta2: Decay = 0.99, tau: Positive = 1e-3) -> Strategy:
    """Adam at the server, on the mean update, without bias correction (Reddi et al. 2021, algorithm 2).

    `beta1` is the decay of the running mean of updates, `beta2` that of their squares.  `tau` is added to the root of
    the squares, and its square is their start.
    """
    return Adaptive(server, beta1, tau, lambda v, update: v.mul_(beta2).addcmul_(update, update, value=1 - beta2))


def fedyogi(server: ServerStep, beta1: Decay = 0.9, beta2: Decay = 0.99, tau: Positive = 1e-3) -> Strategy:
    """Yogi at the server, on the mean update (Reddi et al. 2021, algorithm 2).

    `beta1` is the decay of the running mean of updates, `beta2` sets the pace of their squares.  `tau` is added to the
    root of the squares, and its square is their start.
    """

    def second(v: Tensor, update: Tensor) -> None:  # v moves by at most the square itself
        square = update.square()
        v.addcmul_(square, (v - square).sign_(), value=beta2 - 1)

    return Adaptive(server, beta1, tau, second)
