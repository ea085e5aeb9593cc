"""FedAvgM: the server keeps a momentum of the updates.

Hsu, Qi, Brown 2019, "Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification",
section 4: v <- beta v + update, model <- model + lr v, which is torch's SGD with momentum on the update's opposite.
"""

from __future__ import annotations

from fedmpi import optim
from fedmpi.job import Job
from fedmpi.strategies.refusals import plain_server
from fedmpi.strategies.strategy import Decay, ServerStep, Strategy


class FedAvgM(Strategy):
    """Federated averaging with momentum at the server (Hsu et al. 2019).

    `momentum` is the part of the last step's velocity left in the next.  `nesterov` looks one step ahead, as torch's
    SGD does.
    """

    local_rule = False  # the server's momentum is the point of it

    def __init__(self, server: ServerStep, momentum: Decay = 0.9, nesterov: bool = False) -> None:
        super().__init__(server)
        if server is not None:
            server.make = optim.sgd(momentum=momentum, nesterov=nesterov)

    def check(self, job: Job) -> Job:
        plain_server(job)
        return job
