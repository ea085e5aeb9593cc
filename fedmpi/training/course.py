"""The course of clients' learning in a run, as the job says: the same for every client and rank."""

from __future__ import annotations

from dataclasses import dataclass

from fedmpi.flow import Strategy, Task
from fedmpi.job import Local
from fedmpi.optim import Maker
from fedmpi.training.batches import steps
from fedmpi.training.schedules import Schedule


@dataclass(frozen=True)
class Course:
    """The course of a client's learning: task, strategy, `[local]` of the job, and how the learning rate moves."""

    task: Task
    strategy: Strategy
    local: Local
    optimizer: Maker
    schedule: Schedule
    seed: int
    rounds: int

    def lr(self, round: int) -> float:
        """Return the learning rate of a round."""
        return self.local.lr * self.schedule(round, self.rounds)

    def steps(self, examples: int) -> int:
        """Return the steps of a client of so many examples in a round."""
        local = self.local
        return steps(examples, local.batch, local.epochs, local.steps, local.remainder)
