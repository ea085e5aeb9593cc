"""FedRep: each client fits its own head to the received representation, and then the representation to its head.

Collins, Hassani, Mokhtari, Shakkottai 2021, "Exploiting Shared Representations for Personalized Federated Learning",
algorithm 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from torch import Tensor, nn

from fedmpi.flow import Client, Learner
from fedmpi.job import Count, Job
from fedmpi.strategies.personal.fedper import heads
from fedmpi.strategies.refusals import plain_steps
from fedmpi.strategies.strategy import ServerStep, Strategy


class FedRep(Strategy):
    """A `head` of each client's own, trained before the shared layers in each round (Collins et al. 2021).

    `head` lists modules by name; the last layer where empty.  `head_steps` are the steps on the head; as many as on the
    rest where not given.
    """

    corrects: ClassVar[bool] = False  # its steps are its own
    batched: ClassVar[bool] = True

    def __init__(self, server: ServerStep, head: tuple[str, ...] = (), head_steps: Count | None = None) -> None:
        super().__init__(server)
        self.head, self.head_steps = head, head_steps

    def check(self, job: Job) -> Job:
        plain_steps(job, momentum=True)  # a frozen part must not move by a decay
        return job

    def stays(self, model: nn.Module) -> Callable[[str], bool]:
        return heads(model, self.head)

    def learn(self, client: Client, learner: Learner) -> None:
        private = learner.private

        def head(grads: Tensor, values: Tensor, received: Tensor, client: Client) -> None:
            grads[..., private:].zero_()

        def body(grads: Tensor, values: Tensor, received: Tensor, client: Client) -> None:
            grads[..., :private].zero_()

        learner.train(client, head, self.head_steps)
        learner.train(client, body)
