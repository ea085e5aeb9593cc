"""Federated gradient descent: each client sends one gradient over all its examples.

McMahan et al. 2017, "Communication-Efficient Learning of Deep Networks from Decentralized Data", section 2: FedSGD.
Weighted by examples, with all clients taking part, a round is one step of gradient descent on the pooled data.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch

from fedmpi.flow import Client, Learner
from fedmpi.job import Job, JobError
from fedmpi.strategies.strategy import Strategy


class FedSGD(Strategy):
    """Federated gradient descent: one full-batch gradient a round, at `local.lr` (McMahan et al. 2017)."""

    corrects: ClassVar[bool] = False  # its steps are its own

    def check(self, job: Job) -> None:
        one_gradient(job)

    def settle(self, job: Job) -> Job:
        return whole_client(job)

    def learn(self, client: Client, learner: Learner) -> None:
        client.steps = 1

    def result(self, client: Client) -> Mapping[str, float]:
        if client.examples:
            torch.mul(client.gradient(), -client.lr, out=client.planes[0, client.trained])
        return {}


def whole_client(job: Job) -> Job:
    """Return the job with one step over all of a client's examples."""
    local = job.local.model_copy(update={"batch": 0, "epochs": 1, "steps": None})
    return job.model_copy(update={"local": local})


def one_gradient(job: Job) -> None:
    """Refuse settings of a loop of local steps: the strategy takes one gradient instead."""
    name = job.strategy.name
    for field, usual in {"batch": 0, "epochs": 1, "steps": 1}.items():
        given = getattr(job.local, field)
        if field in job.local.model_fields_set and given not in (usual, None):
            raise JobError(
                f"local.{field}: {given} given, but {name} takes one gradient over all of a client's examples; "
                f'leave it out, or use strategy "fedavg"'
            )
    if job.local.optimizer.name != "sgd" or any(job.local.optimizer.options.values()) or job.local.clip:
        raise JobError(
            f"local: {name} sends a plain gradient, so it takes no local.optimizer but sgd and no local.clip; "
            f"give the server an optimizer, or use the clip stage"
        )
