"""What a job comes to: every name resolved to what it stands for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from fedmpi import optim
from fedmpi.aggregation import Stage
from fedmpi.cohort.samplers import Sampler
from fedmpi.data import ShardSet
from fedmpi.evaluation import Scorer
from fedmpi.flat import FlatModel
from fedmpi.flow import Layout, Task
from fedmpi.job import Job
from fedmpi.plan.stop import Stopper
from fedmpi.strategies import Strategy

if TYPE_CHECKING:
    from fedmpi.rounds.parts import Parts


@dataclass(frozen=True)
class Loop:
    """What a round is: `run` takes a rank from the first broadcast to the last line; `check` refuses what cannot be."""

    run: Callable[[Parts], None]
    check: Callable[[Plan], None] = lambda plan: None
    votes: bool = False  # what is used is clients' models together


@dataclass
class Plan:
    """What a job comes to, on any rank: nothing here knows of a communicator or a device."""

    job: Job  # resolved: what was left open is filled in
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
    notes: list[str] = field(default_factory=list)  # what the try-out saw that a person should know

    @property
    def exact(self) -> bool:
        """Whether a stage promises the same bits at any number of ranks."""
        return any(stage.exact for stage in self.stages)

    def scorer(self, device: torch.device) -> Scorer:
        return Scorer(self.task, self.metrics, self.job.evaluation.batch, device)

    def everyone(self) -> dict[str, float]:
        """What all clients together weigh, in each weighting."""
        cap, sizes = self.job.aggregation.cap, self.shards.sizes(np.arange(self.shards.clients))
        assert cap is not None
        return {"uniform": float(len(sizes)), "examples": float(np.minimum(sizes / cap, 1.0).sum())}

    def layout(self, flat: FlatModel) -> Layout:
        """Where things lie on the wire of this job."""
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
