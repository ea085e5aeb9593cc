"""Per-FedAvg, first order: the common model is trained to be good after one step on a client's own examples.

Fallah, Mokhtari, Ozdaglar 2020, "Personalized Federated Learning with Theoretical Guarantees: A Model-Agnostic
Meta-Learning Approach", algorithm 1 with the Hessian left out (FO, section 5).  `local.lr` is its beta.
"""

from __future__ import annotations

from typing import ClassVar

from fedmpi.flow import Client, Learner
from fedmpi.job import Count, Job, Positive
from fedmpi.strategies.refusals import own_steps
from fedmpi.strategies.strategy import ServerStep, Strategy, mean_loss


class PerFedAvg(Strategy):
    """Meta-learning for a model good after a few steps on a client's own examples (Fallah et al. 2020).

    `inner_lr` is the learning rate of these steps.  `adapt` is their number where a client's own model is scored or
    used; training takes one.
    """

    corrects: ClassVar[bool] = False  # its steps are its own
    batched: ClassVar[bool] = True

    def __init__(self, server: ServerStep, inner_lr: Positive = 0.01, adapt: Count = 1) -> None:
        super().__init__(server)
        self.inner_lr, self.adapt = inner_lr, adapt

    def check(self, job: Job) -> Job:
        own_steps(job)
        return job

    def learn(self, client: Client, learner: Learner) -> None:
        w, losses = learner.values.clone(), []
        batches = learner.batches(client, 2 * learner.steps(client))
        for support, query in zip(batches, batches, strict=False):
            losses.append((learner.gradient(client, support), support[1]))
            learner.values.sub_(learner.grads, alpha=self.inner_lr)
            learner.gradient(client, query)
            w.sub_(learner.grads, alpha=client.lr)
            learner.values.copy_(w)
            client.steps += 1
        client.loss = mean_loss(losses)

    def personal(self, client: Client, learner: Learner) -> None:
        for batch in learner.batches(client, self.adapt):
            learner.gradient(client, batch)
            learner.values.sub_(learner.grads, alpha=self.inner_lr)
