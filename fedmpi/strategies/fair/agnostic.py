"""Agnostic federated averaging: hard clients count more and more, for a model good on every mixture of clients.

Mohri, Sivek, Suresh 2019, "Agnostic Federated Learning"; Ro, Chen, Mathews, Mohri, Suresh 2021,
"Communication-Efficient Agnostic Federated Averaging", algorithm 1, with every client a domain.  A client keeps the
logarithm of its own weight, raised by its loss at the received model; the total of all weights rides in the header, so
no number grows beyond bounds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from fedmpi.flow import Client, State
from fedmpi.job import NonNegative
from fedmpi.strategies.strategy import ServerStep, Strategy

REACH = 20.0  # a weight is within e^20 of the last cohort's mean: all or nothing, and still a float32 or a fixed point


class Agnostic(Strategy):
    """Averaging by weights growing with exp(`rate` * loss) a round (Mohri et al. 2019, Ro et al. 2021)."""

    sums: Mapping[str, str] = {"mass": "job"}
    memory: Mapping[str, str] = {"logit": "scalar"}
    notes: Mapping[str, str] = {"weight": "scalar"}

    def __init__(self, server: ServerStep, rate: NonNegative = 0.1) -> None:
        super().__init__(server)
        self.rate = rate

    def prepare(self, client: Client) -> None:
        logit = client.memory["logit"].double() - client.said[0]
        client.notes["weight"].copy_(logit.clamp(-REACH, REACH).exp())
        if client.examples:
            client.memory["logit"].add_(self.rate * client.objective())

    def result(self, client: Client) -> Mapping[str, float]:
        weight = float(client.notes["weight"])
        client.change(client.planes[0])
        client.planes[0, client.trained].mul_(weight)
        return {"mass": weight}

    def step(self, state: State, mean: Tensor, sums: Mapping[str, float]) -> None:
        if sums["mass"] > 0:
            mean[0, self.layout.trained].div_(sums["mass"])
            state.said[0] += math.log(sums["mass"])
        self.server.step(mean[0])
