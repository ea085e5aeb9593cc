"""FedProx: a proximal term holds each client near the received model.

Li, Sahu, Zaheer, Sanjabi, Talwalkar, Smith 2020, "Federated Optimization in Heterogeneous Networks", equation 2.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from fedmpi.flow import Client
from fedmpi.job import NonNegative
from fedmpi.strategies.strategy import ServerStep, Strategy


class FedProx(Strategy):
    """Federated averaging with a proximal term in every client's loss (Li et al. 2020).

    The term is `mu` / 2 times the squared distance to the received model.
    """

    batched: ClassVar[bool] = True

    def __init__(self, server: ServerStep, mu: NonNegative = 0.01) -> None:
        super().__init__(server)
        self.mu = mu

    def correct(self, grads: Tensor, values: Tensor, received: Tensor, client: Client) -> None:
        grads.add_(values - received, alpha=self.mu)
