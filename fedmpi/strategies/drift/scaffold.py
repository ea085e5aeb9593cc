"""SCAFFOLD: each client corrects its gradients by their difference from everybody's.

Karimireddy, Kale, Mohri, Reddi, Stich, Suresh 2020, "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning",
algorithm 1.  The control variate c is the second plane down, its mean change the second plane up; c_i stays with the
client.  c is the mean of all c_i in the job's own weighting (the paper's, where it is uniform): else a job weighted by
examples would be drawn to the optimum of the unweighted mean.  With momentum the K of option II is the length of the
steps along a constant gradient, so c_i is a mean gradient as without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor

from fedmpi.flow import Client, State
from fedmpi.job import Job
from fedmpi.strategies.refusals import plain_steps
from fedmpi.strategies.strategy import ServerStep, Strategy


class Scaffold(Strategy):
    """Control variates against client drift (Karimireddy et al. 2020).

    `option` is 1 or 2 of line 12: a control variate from one gradient over all examples, or from the local steps.
    """

    down = 2
    up = ("job", "job")
    memory: Mapping[str, str] = {"control": "trained"}
    notes: Mapping[str, str] = {"shift": "trained"}
    batched: ClassVar[bool] = True

    def __init__(self, server: ServerStep, option: Literal[1, 2] = 2) -> None:
        super().__init__(server)
        self.option = option
        if option == 1:
            self.notes = {**self.notes, "gradient": "trained"}

    def check(self, job: Job) -> Job:
        if self.option == 2:
            plain_steps(job, momentum=True)
        return job

    def prepare(self, client: Client) -> None:
        torch.sub(client.down[1, client.trained], client.memory["control"], out=client.notes["shift"])
        if self.option == 1 and client.examples:
            client.notes["gradient"].copy_(client.gradient())

    def correct(self, grads: Tensor, values: Tensor, received: Tensor, client: Client) -> None:
        grads.add_(client.notes["shift"])

    def result(self, client: Client) -> Mapping[str, float]:
        client.change(client.planes[0])
        change, control, trained = client.planes[1], client.memory["control"], client.trained
        if not client.examples:
            return {}
        if self.option == 1:
            torch.sub(client.notes["gradient"], control, out=change[trained])
        else:  # c_i+ - c_i = (x - y_i) / (K lr) - c
            torch.mul(client.planes[0, trained], -1 / (client.reach * client.lr), out=change[trained])
            change[trained].sub_(client.down[1, trained])
        control.add_(change[trained])
        change.div_(client.times)  # it changes once, however often it was drawn
        return {}

    def step(self, state: State, mean: Tensor, sums: Mapping[str, float]) -> None:
        self.server.step(mean[0])
        state.planes[1].add_(mean[1], alpha=self.share(1, sums))
