"""Gradient aggregation by direction: each client's gradient is divided by its L2 norm before the weighted sum.

Normalised gradient descent (Nesterov 1984; Hazan, Levy, Shalev-Shwartz 2015, "Beyond Convexity: Stochastic
Quasi-Convex Optimization", algorithm 1) on each client: none leads by the size of its gradient alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch

from fedmpi.flow import Client, Learner
from fedmpi.strategies.strategy import Strategy


class NormalisedSGD(Strategy):
    """Federated gradient descent by direction: clients' gradients are scaled to one length (Hazan et al. 2015).

    Each client sends one full-batch gradient a round, of length `local.lr`.
    """

    local_rule = False  # it is about the sum, which no client's gradient should lead
    whole_client: ClassVar[bool] = True
    corrects: ClassVar[bool] = False  # its steps are its own
    batched: ClassVar[bool] = True

    def learn(self, client: Client, learner: Learner) -> None:
        client.steps = 1

    def result(self, client: Client) -> Mapping[str, float]:
        if client.examples:
            gradient = client.gradient()
            length = float(client.norm(gradient))
            if length > 0:
                torch.mul(gradient, -client.lr / length, out=client.planes[0, client.trained])
        return {}
