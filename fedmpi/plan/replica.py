"""The model as one rank holds it, with the buffer that a broadcast lands in and the engine that trains it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fedmpi.flat import FlatModel
from fedmpi.flow import Layout, State
from fedmpi.plan.plan import Plan
from fedmpi.training import Sequential


@dataclass(frozen=True)
class Replica:
    """A rank's copy of the model: where it lies, what a round brings of it, and the engine."""

    flat: FlatModel
    layout: Layout
    state: State
    engine: Sequential

    @classmethod
    def of(cls, plan: Plan, device: torch.device, staged: bool | None = None) -> Replica:
        """The plan's model on a device, where rounds are trained.

        `staged` keeps what MPI touches in host buffers of its own, as a GPU needs it; True does so on the host too.
        """
        job = plan.job
        staged = device.type != "cpu" if staged is None else staged
        flat = FlatModel(plan.model, plan.strategy.stays(plan.model), plan.dtype, device)
        layout = plan.layout(flat)
        pin = device.type == "cuda"
        state = State(flat.shared.start, flat.size, plan.strategy.down, flat.dtype, pin, flat.whole.size)
        engine = Sequential(
            flat, plan.task, plan.strategy, layout, plan.shards, job.local, plan.optimizer, plan.schedule,
            job.seed, job.rounds, state, staged,
        )  # fmt: skip
        return cls(flat, layout, state, engine)
