"""The server's step: one of torch's optimisers over the model, or the plain sum.

Reddi, Charles, Zaheer, Garrett, Rush, Konecny, Kumar, McMahan 2021, "Adaptive Federated Optimization", algorithm 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from fedmpi.flow import State
from fedmpi.optim import Maker, Optimizer


class ServerStep:
    """The server's step: an optimiser of torch's on the mean update's opposite as gradient (Reddi et al. 2021).

    It lives at home alone, over the first plane of the state.  Floating buffers behind the trained values are averaged:
    an adaptive optimiser would make a variance negative.  `schedule` gives the factor of `lr` in a round.
    """

    def __init__(self, optimizer: Maker, lr: float, schedule: Callable[[int], float] = lambda round: 1.0) -> None:
        self.make, self.base, self.schedule = optimizer, lr, schedule
        self.optimizer: Optimizer | None = None

    def begin(self, state: State, trained: slice) -> None:
        """Take hold of the state's first plane."""
        self.now, self.values, self.trained = state, state.planes[0], trained
        self.optimizer = self.make(self.values[trained], self.base)

    @property
    def lr(self) -> float:
        """Return this round's learning rate."""
        return self.base * self.schedule(self.now.round)

    def average(self, mean: Tensor) -> Tensor:
        """Average the buffers, and return the rest of the mean update: its view `(trained,)`."""
        self.values[self.trained.stop :].add_(mean[self.trained.stop :])
        return mean[self.trained]

    def step(self, mean: Tensor) -> None:
        """Move the model by the mean update `(size,)`, whose memory is used up."""
        assert self.optimizer is not None
        change = self.average(mean)
        if self.optimizer.plain:
            self.values[self.trained].add_(change, alpha=self.lr)
        else:
            self.optimizer.pace(self.lr)
            self.optimizer.step(change.neg_())

    def state(self) -> dict[str, Tensor]:
        return {} if self.optimizer is None else self.optimizer.state()

    def load(self, state: Mapping[str, Tensor]) -> None:
        assert self.optimizer is not None
        self.optimizer.load(state)
