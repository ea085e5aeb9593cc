"""Local fine-tuning: federated averaging, after which each client trains the common model on its own examples.

Wang, Mathews, Kiddon, Eichner, Beaufays, Ramage 2019, "Federated Evaluation of On-Device Personalization", section 3.
Nothing is stored: a client's model is made from the common one at every use.
"""

from __future__ import annotations

from fedmpi.flow import Client, Learner
from fedmpi.job import Count
from fedmpi.strategies.strategy import ServerStep, Strategy


class FineTuning(Strategy):
    """Federated averaging, then local training of the common model (Wang et al. 2019).

    `steps` of local training; as many as in a round where not given.
    """

    def __init__(self, server: ServerStep, steps: Count | None = None) -> None:
        super().__init__(server)
        self.steps = steps

    def personal(self, client: Client, learner: Learner) -> None:
        learner.train(client, steps=self.steps)
