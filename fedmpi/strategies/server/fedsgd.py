"""Federated gradient descent: each client sends one gradient over all its examples.

McMahan et al. 2017, "Communication-Efficient Learning of Deep Networks from Decentralized Data", section 2: FedSGD.
Weighted by examples, with all clients taking part, a round is one step of gradient descent on the pooled data.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch

from fedmpi.flow import Client, Learner
from fedmpi.strategies.strategy import Strategy


class FedSGD(Strategy):
    """Federated gradient descent: one full-batch gradient a round, at `local.lr` (McMahan et al. 2017)."""

    whole_client: ClassVar[bool] = True
    corrects: ClassVar[bool] = False  # its steps are its own
    batched: ClassVar[bool] = True

    def learn(self, client: Client, learner: Learner) -> None:
        client.steps = 1

    def result(self, client: Client) -> Mapping[str, float]:
        if client.examples:
            torch.mul(client.gradient(), -client.lr, out=client.planes[0, client.trained])
        return {}
