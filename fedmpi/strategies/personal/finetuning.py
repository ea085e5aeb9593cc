"""Local fine-tuning: federated averaging, after which each client trains the common model on its own examples.

Wang, Mathews, Kiddon, Eichner, Beaufays, Ramage 2019, "Federated Evaluation of On-Device Personalization", section 3.
Nothing is kept: a client's model is made of the common one whenever it is asked for.
"""

from __future__ import annotations

from fedmpi.flow import Client, Learner
from fedmpi.strategies.strategy import Count, Server, Strategy


class FineTuning(Strategy):
    """Federated averaging, then local training: `steps` of it, or as much as in a round (Wang et al. 2019)."""

    def __init__(self, server: Server, steps: Count | None = None) -> None:
        super().__init__(server)
        self.steps = steps

    def personal(self, client: Client, learner: Learner) -> None:
        learner.train(client, steps=self.steps)
