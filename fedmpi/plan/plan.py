"""The plan of a job: every name resolved to its component."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import nn

from fedmpi import optim
from fedmpi.aggregation import Stage
from fedmpi.cohort.samplers import Sampler
from fedmpi.data import ShardSet
from fedmpi.evaluation import Scorer
from fedmpi.flat import FlatModel
from fedmpi.flow import Examples, Layout, Task
from fedmpi.job import Job
from fedmpi.plan.stop import Stopper
from fedmpi.strategies import Strategy
from fedmpi.training import Course


@runtime_checkable
class Loop(Protocol):
    """The course of a run's rounds; a loop of one's own inherits the methods it leaves alone."""

    votes: bool = False  # clients' models are used together
    once: bool = False  # a client takes part once a round, and cannot be drawn twice

    def check(self, plan: Plan) -> None:
        """Raise JobError where the rest of the plan cannot go with this loop."""

    def examples(self, plan: Plan) -> Examples:
        """Return the examples of clients' training."""
        return plan.shards

    def model(self, plan: Plan, flat: FlatModel) -> nn.Module:
        """Return the run's product: the module to be scored, stored and used."""
        return flat.model

    def run(self, parts: Any) -> None:
        """Take a rank's `fedmpi.rounds.Parts` through every round; the same collectives on every rank."""
        ...


@dataclass
class Plan:
    """A job, resolved, on any rank: nothing here knows of a communicator or a device."""

    job: Job  # resolved: open fields are filled in
    shards: ShardSet
    task: Task
    model: nn.Module
    dtype: torch.dtype
    strategy: Strategy
    stages: list[Stage]
    cohort: int  # clients a round, as asked
    sampler: Sampler
    loop: Loop
    optimizer: optim.Maker
    schedule: Callable[[int, int], float]  # of the clients' learning rate
    pace: Callable[[int, int], float]  # of the server's
    metrics: tuple[str, ...]
    stopper: Stopper
    notes: list[str] = field(default_factory=list)  # lines for a person, by the try-out

    @property
    def exact(self) -> bool:
        """Return whether a stage promises the same bits at any number of ranks."""
        return any(stage.exact for stage in self.stages)

    def scorer(self, device: torch.device) -> Scorer:
        """Return the scorer of models on a device."""
        return Scorer(self.task, self.metrics, self.job.evaluation.batch, device)

    def course(self) -> Course:
        """Return the course of clients' training."""
        job = self.job
        return Course(self.task, self.strategy, job.local, self.optimizer, self.schedule, job.seed, job.rounds)

    def everyone(self) -> dict[str, float]:
        """Return the weight of all clients together, in each weighting."""
        cap, sizes = self.job.aggregation.cap, self.shards.sizes(np.arange(self.shards.clients))
        assert cap is not None
        return {"uniform": float(len(sizes)), "examples": float(np.minimum(sizes / cap, 1.0).sum())}

    def layout(self, flat: FlatModel) -> Layout:
        """Return the layout of this job's wire."""
        start = flat.shared.start
        return Layout(
            size=flat.size,
            trained=slice(0, flat.trained.stop - start),
            dtype=flat.dtype,
            up=len(self.strategy.up),
            weights=tuple(
                self.job.aggregation.weights if weighting == "job" else weighting
                for weighting in (*self.strategy.up, *self.strategy.sums.values())
            ),
            sums=tuple(self.strategy.sums),
        )
