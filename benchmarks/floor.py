"""The floor: what federated averaging costs in plain eager PyTorch, one Allreduce a round and no trainer."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from mpi4py import MPI
from torch import nn
from torch.nn import functional

import fedmpi
from fedmpi.bench import floor
from fedmpi.data import ShardSet


class Floor(floor.Floor):
    """The floor over a shard set, whose examples lie in memory as float32 before anything is timed."""

    def __init__(
        self, comm: MPI.Comm, shards: ShardSet, model: nn.Module, lr: float, batch: int, epochs: int, clients: list[int]
    ) -> None:
        columns = {client: self._columns(shards, client) for client in clients}
        sizes = shards.sizes(np.arange(shards.clients))
        super().__init__(comm, columns, sizes, model, functional.cross_entropy, lr, batch, epochs)
        x, y = shards.test()
        self.test = (x.float() * shards.scale, y)

    def _columns(self, shards: ShardSet, client: int) -> tuple[torch.Tensor, torch.Tensor]:
        x, y = shards.train(client)
        return x.float() * shards.scale, y.clone()

    @torch.no_grad()
    def evaluate(self) -> float:
        """Test accuracy of the averaged model, in batches of 1024."""
        self.lay()
        x, y = self.test
        right = sum(
            int((self.model(part).argmax(-1) == truth).sum())
            for part, truth in zip(x.split(1024), y.split(1024), strict=True)
        )
        return right / len(y)


def timed(mine: Floor | None, world: MPI.Comm, rounds: int, work: Callable[[Floor, int], None]) -> float:
    """Median seconds of `work(floor, round)` on the floor's ranks, told to the server, which sleeps meanwhile."""
    spent = np.zeros(1)
    if mine is not None:
        times = []
        for round in range(1, rounds + 1):
            torch.manual_seed(round)
            began = time.perf_counter()
            work(mine, round)
            mine.comm.Barrier()
            times.append(time.perf_counter() - began)
        spent[0] = statistics.median(times)
    waiting = world.Ibarrier()
    while not waiting.Test():
        time.sleep(1e-3)
    world.Bcast(spent, root=1)
    return float(spent[0])


def ours(job: dict[str, Any], world: MPI.Comm, **given: Any) -> float:
    """Median seconds of a job's rounds, wall clock from one line to the next, at the server.

    The last line waits for the final score, and the first for two crossings: what lies between are rounds.
    """
    ends: list[float] = []
    fedmpi.train(job, world, on_round=lambda line: ends.append(time.perf_counter()), **given)
    return statistics.median(np.diff(ends[:-1])) if ends else 0.0
