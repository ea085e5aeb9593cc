"""The plan of a job: every name resolved to its component."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import nn

from fedmpi import optim
from fedmpi.aggregation import PATHS, Path, Pipeline
from fedmpi.cohort.samplers import Sampler
from fedmpi.data import ShardSet
from fedmpi.evaluation import Scorer
from fedmpi.flat import FlatModel
from fedmpi.flow import Comm, Engine, Examples, Layout, Task
from fedmpi.job import Job, JobError
from fedmpi.plan.stop import Stopper
from fedmpi.strategies import Strategy
from fedmpi.training import ENGINES, Course


@runtime_checkable
class Loop(Protocol):
    """The course of a run's rounds; a loop of one's own inherits the methods it leaves alone."""

    votes: bool = False  # clients' models are used together
    once: bool = False  # a client takes part once a round, and cannot be drawn twice
    hands_on: bool = False  # a client trains the model of the one before it

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
    stages: Pipeline
    cohort: int  # clients a round, as asked
    sampler: Sampler
    loop: Loop
    optimizer: optim.Maker
    schedule: Callable[[int, int], float]  # of the clients' learning rate
    pace: Callable[[int, int], float]  # of the server's
    metrics: tuple[str, ...]
    stopper: Stopper
    notes: list[str] = field(default_factory=list)  # lines for a person, by the try-out

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

    def path(self, comm: Comm, layout: Layout, device: torch.device, staged: bool = False) -> Path:
        """Return a rank's path of updates, one after another of this job's stages."""
        return PATHS.choose(
            self.job.aggregation.path, comm=comm, stages=self.stages, layout=layout, device=device, staged=staged
        )

    def engine(self, **given: Any) -> Engine:
        """Return a rank's engine of training; `given` are the arguments of ENGINES."""
        parts = {"course": self.course(), "keeps": self.stages.memory, "cohort": self.together}
        return ENGINES.choose(self.job.local.engine, **(parts | given))

    @property
    def measured(self) -> bool:
        """Return whether clients are dealt by the ranks' measured pace: of itself only where no bits depend on it."""
        deal = self.job.place.deal
        return self.stages.exact if deal == "auto" else deal == "measured"

    @property
    def together(self) -> int:
        """Return the most clients that train on one model."""
        return 1 if self.loop.hands_on else self.sampler.most

    def layout(self, flat: FlatModel) -> Layout:
        """Return the layout of this job's wire."""
        start, strategy, stages = flat.shared.start, self.strategy, self.stages
        for name in stages.notes:
            if name in strategy.sums:
                raise JobError(
                    f"aggregation.stages: a stage notes {name!r}, which {self.job.strategy.name} sums; give one of "
                    f"them another name"
                )
        weights = tuple(
            self.job.aggregation.weights if weighting == "job" else weighting
            for weighting in (*strategy.up, *strategy.sums.values(), *stages.notes.values())
        )
        for weighting in weights if stages.totals else ():
            if weighting != "none" and weighting not in stages.totals:
                raise JobError(
                    f"aggregation.stages: the total of {', '.join(stages.totals)} is fixed, and {weighting!r} weighs "
                    f"a plane or a sum of {self.job.strategy.name}; let aggregation.weights be another"
                )
        return Layout(
            size=flat.size,
            trained=slice(0, flat.trained.stop - start),
            dtype=flat.dtype,
            up=len(strategy.up),
            weights=weights,
            sums=tuple(strategy.sums),
            notes=tuple(stages.notes),
            fixed=stages.totals,
        )
