"""Clients' own models of a finished run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from fedmpi.comm import Solo
from fedmpi.data import ShardSet
from fedmpi.flow import Refused
from fedmpi.job import Job, JobError
from fedmpi.plan.assemble import assemble
from fedmpi.plan.components import made_strategy
from fedmpi.plan.replica import Replica
from fedmpi.records.checkpoint import Checkpoints
from fedmpi.records.folder import RunFolder
from fedmpi.records.memory import SLOTS_FILE
from fedmpi.rounds import first
from fedmpi.rounds.loops import LOOPS
from fedmpi.tell import note
from fedmpi.use.shards import open_own


class Own:
    """Clients' own models of a run, made one after another in the same memory."""

    def __init__(self, job: Job, run: RunFolder, shards: ShardSet) -> None:
        self.shards = shards
        plan = assemble(job, shards, try_out=False, loops=LOOPS)
        torch.set_num_threads(job.threads or Solo().place.threads)
        replica = Replica.of(plan, Solo().place.device(job.device), clients=run.clients, writes=False)
        if replica.memory is not None and not (run.clients / SLOTS_FILE).exists():
            raise Refused(f"{run.clients}: is gone, and clients' own models with it")
        checkpoint = Checkpoints(run.checkpoints, keep=1).last(newest=replica.memory is not None)
        if checkpoint is None:
            raise Refused(f"{run.checkpoints}: holds no checkpoint, and clients' own models are made from the last one")
        tensors, metadata = checkpoint
        replica.state.planes.copy_(tensors["planes"])
        first.recall(run, replica.flat)
        replica.engine.start()
        replica.state.counts[:] = metadata.get("counts", replica.state.counts)
        replica.state.round = metadata["round"] + 1
        replica.engine.receive()
        self.replica = replica

    def index(self, client: str) -> int:
        """Return the index of a client's id; JobError, with some ids, where the shard set has no such client."""
        for index in range(self.shards.clients):
            if self.shards.id(index) == client:
                return index
        raise JobError(f"--client: {client!r} given; {self.shards.folder} has {_some(self.shards)}")

    def model(self, index: int) -> nn.Module:
        """Return a client's own model, or the common one where it never trained; the next call overwrites it."""
        self.replica.engine.begin()
        self.replica.engine.personal(index)
        return self.replica.flat.model


def own_models(job: Job, run: RunFolder, table: Mapping[str, Any], needed: bool) -> Own | None:
    """Return clients' own models; None where the strategy makes none, or they fail to load and are not `needed`."""
    if not made_strategy(job).personalises:
        return None
    try:
        return Own(job, run, open_own(job, run, table))
    except Refused as refused:
        if needed:
            raise
        note(f"clients' own models are left out: {refused}")
        return None


def _some(shards: ShardSet) -> str:
    """Return the first few ids for a message, and the number of all where there are more."""
    names = [shards.id(index) for index in range(min(5, shards.clients))]
    return ", ".join(names) + (f", ... ({shards.clients} in all)" if shards.clients > len(names) else "")
