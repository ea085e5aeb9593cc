"""FedDecorr: the dimensions of a client's representation are kept from collapsing into few.

Shi, Liang, Zhang, Tan, Bai 2023, "Towards Understanding and Mitigating Dimensional Collapse in Heterogeneous Federated
Learning", equation 6: the squared Frobenius norm of the representation's correlation matrix over the batch, over d^2.
The representation is the input of the last layer.

The authors' code sums over the batch where equation 6 averages (it squares z^T z without its 1 / N, with the unbiased
variance, means over the d (d - 1) off the diagonal, and divides by N once): its term has (N - 1)^2 / N * d / (d - 1)
times the gradient of this one, about N - 2.  Their .1 at a batch of 64 is a `beta` of about 6.2 here.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from fedmpi.flow import Client, Learner, Task
from fedmpi.job import NonNegative
from fedmpi.strategies.drift.representation import Representation
from fedmpi.strategies.strategy import ServerStep, Strategy

EPS = 1e-8  # of a variance: a unit that a batch leaves silent has no correlation


class FedDecorr(Strategy):
    """Federated averaging with a penalty on correlated inputs of the last layer (Shi et al. 2023).

    `beta` times the mean squared correlation of these inputs is added to every loss.  The authors' code with .1 is a
    `beta` of about 0.1 (N - 2) here, N the examples of a batch: it sums where equation 6 averages.
    """

    batched: ClassVar[bool] = True

    def __init__(self, server: ServerStep, beta: NonNegative = 0.1) -> None:
        super().__init__(server)
        self.beta = beta
        self.representation = Representation()

    def learn(self, client: Client, learner: Learner) -> None:
        with self.representation.watch(learner.model):
            learner.train(client, self.rule)

    def loss(self, task: Task, model: nn.Module, inputs: Tensor, y: Tensor, client: Client) -> Tensor:
        loss = task.loss(model(inputs), y)
        seen = self.representation.take()
        if len(seen) < 2:
            return loss
        centred = seen - seen.mean(dim=0)
        scaled = centred / (centred.square().mean(dim=0) + EPS).sqrt()
        correlation = scaled.T @ scaled / len(seen)
        return loss + self.beta * correlation.square().mean()
