"""MOON: a client's representation is drawn to the received model's and away from its own previous one.

Li, He, Song 2021, "Model-Contrastive Federated Learning", equation 3 and algorithm 1.  The representation is the input
of the last layer (the paper's projection head is part of its models); the received and the previous model look at the
batch as they would in use, without dropout and with their own statistics.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fedmpi.flow import Client, Learner, Task
from fedmpi.job import NonNegative, Positive
from fedmpi.strategies.drift.representation import Representation
from fedmpi.strategies.strategy import ServerStep, Strategy


class MOON(Strategy):
    """Federated averaging with a contrastive term in every client's loss (Li et al. 2021).

    `mu` is the weight of the term, `temperature` the divisor of its cosine similarities.
    """

    memory: Mapping[str, str] = {"previous": "model"}
    batched: ClassVar[bool] = True

    def __init__(self, server: ServerStep, mu: NonNegative = 1.0, temperature: Positive = 0.5) -> None:
        super().__init__(server)
        self.mu, self.temperature = mu, temperature
        self.representation = Representation()

    def learn(self, client: Client, learner: Learner) -> None:
        with self.representation.watch(learner.model):
            learner.train(client, self.rule)
        client.memory["previous"].copy_(client.values)

    def loss(self, task: Task, model: nn.Module, inputs: Tensor, y: Tensor, client: Client) -> Tensor:
        loss = task.loss(model(inputs), y)
        mine = self.representation.take()
        with torch.no_grad():
            model.eval()
            received, previous = (
                self._look(model, client.named(vector), inputs)
                for vector in (client.received, client.memory["previous"])
            )
            model.train()
        alike = torch.stack([torch.cosine_similarity(mine, other) for other in (received, previous)], dim=1)
        nearer = torch.zeros(len(alike), dtype=torch.int64, device=alike.device)
        return loss + self.mu * nn.functional.cross_entropy(alike / self.temperature, nearer)

    def _look(self, model: nn.Module, tensors: dict[str, Tensor], inputs: Tensor) -> Tensor:
        functional_call(model, tensors, (inputs,))
        return self.representation.take()
