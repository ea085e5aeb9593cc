"""Ditto: beside the common model each client trains its own, held near it.

Li, Hu, Beirami, Smith 2021, "Ditto: Fair and Robust Federated Learning Through Personalization", algorithm 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from fedmpi.flow import Client, Learner
from fedmpi.job import Count, NonNegative
from fedmpi.strategies.strategy import ServerStep, Strategy


class Ditto(Strategy):
    """A model of each client's own, held near the common one by a proximal term (Li et al. 2021).

    The own model's loss holds `lam` / 2 times its squared distance to the common one.  `steps` of the own model's
    training a round; as many as the common one's where not given.
    """

    memory: Mapping[str, str] = {"own": "model"}
    batched: ClassVar[bool] = True

    def __init__(self, server: ServerStep, lam: NonNegative = 0.1, steps: Count | None = None) -> None:
        super().__init__(server)
        self.lam, self.steps = lam, steps

    def learn(self, client: Client, learner: Learner) -> None:
        learner.train(client, self.rule)
        common = client.values.clone()
        client.values.copy_(client.memory["own"])
        learner.train(client, self._near if self.lam else None, self.steps)
        client.memory["own"].copy_(client.values)
        client.values.copy_(common)

    def _near(self, grads: Tensor, values: Tensor, received: Tensor, client: Client) -> None:
        grads.add_(values - received, alpha=self.lam)

    def personal(self, client: Client, learner: Learner) -> None:
        if not client.fresh:
            client.values.copy_(client.memory["own"])
