"""Local training: each client by itself, the baseline of every federated method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from fedmpi.flow import Client, Learner
from fedmpi.strategies.strategy import Strategy


class Local(Strategy):
    """A model of each client's own, trained on its examples alone; no update is sent."""

    memory: Mapping[str, str] = {"own": "model"}
    alone: ClassVar[bool] = True
    common: ClassVar[bool] = False
    batched: ClassVar[bool] = True

    def learn(self, client: Client, learner: Learner) -> None:
        client.values.copy_(client.memory["own"])
        learner.train(client, self.rule)
        client.memory["own"].copy_(client.values)

    def result(self, client: Client) -> Mapping[str, float]:
        return {}

    def personal(self, client: Client, learner: Learner) -> None:
        client.values.copy_(client.memory["own"])
