"""A rank's copy of the model, with the buffer of its broadcasts and the engine of its training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fedmpi.flat import FlatModel
from fedmpi.flow import Engine, Examples, Layout, State
from fedmpi.plan.plan import Plan
from fedmpi.records.memory import Memory
from fedmpi.training import keepsake_sizes


@dataclass(frozen=True)
class Replica:
    """A rank's copy of the model: its vector, the state of a round, its engine, the memory of its clients."""

    flat: FlatModel
    layout: Layout
    state: State
    engine: Engine
    memory: Memory | None  # of clients that keep something
    staged: bool  # MPI's buffers are the host's own, and not the model's

    @classmethod
    def of(
        cls,
        plan: Plan,
        device: torch.device | str = "cpu",
        *,
        staged: bool | None = None,
        examples: Examples | None = None,
        clients: Path | None = None,
        writes: bool = True,
        engine: Callable[..., Engine] | None = None,
        paces: int = 0,
    ) -> Replica:
        """Return the plan's model on a device, ready for a first broadcast.

        `staged` gives MPI host buffers of its own, as a GPU needs them; True does so on the host too.  Clients train on
        `examples`, the plan's shard set where None.  Their memory lies in the folder `clients`, in this process alone
        where None; it is only read where `writes` is False.  `engine` makes another engine than the plan's.  Broadcasts
        carry so many `paces`.
        """
        job, device = plan.job, torch.device(device)
        flat = FlatModel(plan.model, plan.strategy.stays(plan.model), plan.dtype, device)
        layout = plan.layout(flat)
        pin = device.type == "cuda"
        state = State(flat.shared.start, flat.size, plan.strategy.down, flat.dtype, pin, flat.whole.size, paces)
        width = sum(keepsake_sizes(plan.strategy, flat, plan.stages.memory, layout.up).values())
        memory = Memory(clients, width, flat.dtype, job.checkpoint.every, writes) if width else None
        staged = device.type != "cpu" if staged is None else staged
        given: Mapping[str, Any] = {
            "flat": flat,
            "layout": layout,
            "state": state,
            "examples": plan.shards if examples is None else examples,
            "memory": memory,
            "staged": staged,
        }
        return cls(flat, layout, state, (engine or plan.engine)(**given), memory, staged)
