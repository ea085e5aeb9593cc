"""pFedMe: the common model is the best start for a search of each client's own near by.

T. Dinh, Tran, Nguyen 2020, "Personalized Federated Learning with Moreau Envelopes", algorithm 1.  `server.lr` is its
beta, `local.lr` its eta.  A local round has a batch of its own; the search for theta goes on from the local round
before, and begins each round at the received model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from fedmpi.flow import Client, Learner
from fedmpi.job import Count, Job, JobError, Positive
from fedmpi.strategies.refusals import own_steps, plain_server
from fedmpi.strategies.strategy import ServerStep, Strategy, mean_loss


class PFedMe(Strategy):
    """Moreau envelopes around each client's own model (T. Dinh et al. 2020).

    `lam` is the weight of the squared distance between a client's own model and the common one.  `inner` is the number
    of steps towards the own model on each batch, `inner_lr` their learning rate.
    """

    memory: Mapping[str, str] = {"own": "model"}
    corrects: ClassVar[bool] = False  # its steps are its own
    batched: ClassVar[bool] = True

    def __init__(self, server: ServerStep, lam: Positive = 15.0, inner: Count = 5, inner_lr: Positive = 0.01) -> None:
        super().__init__(server)
        self.lam, self.inner, self.inner_lr = lam, inner, inner_lr

    def check(self, job: Job) -> Job:
        plain_server(job)
        own_steps(job)
        if job.local.lr * self.lam >= 2:
            raise JobError(
                f"local.lr: {job.local.lr:g} given, but times pfedme's lam = {self.lam:g} it should come to below 2, "
                f"better below 1, or the model swings ever further past its client's own; take a smaller one of them"
            )
        return job

    def learn(self, client: Client, learner: Learner) -> None:
        theta, w = learner.values, learner.values.clone()
        losses = []
        for batch in learner.batches(client):
            for step in range(self.inner):
                loss = learner.gradient(client, batch)
                if not step:
                    losses.append((loss, batch[1]))
                learner.grads.add_(theta - w, alpha=self.lam)
                theta.sub_(learner.grads, alpha=self.inner_lr)
            w.sub_(w - theta, alpha=client.lr * self.lam)
            client.steps += 1
        client.loss = mean_loss(losses)
        client.memory["own"].copy_(client.values)
        theta.copy_(w)

    def personal(self, client: Client, learner: Learner) -> None:
        if not client.fresh:
            client.values.copy_(client.memory["own"])
