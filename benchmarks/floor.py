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
from torch.nn.utils import parameters_to_vector, vector_to_parameters

import fedmpi
from fedmpi.data import ShardSet


class Floor:
    """FedAvg over a communicator whose every rank trains: `round(cohort)` is what one round costs.

    Examples lie in memory as float32 before anything is timed; a client's batches are cut by index; the optimiser is
    torch's own.
    """

    def __init__(
        self, comm: MPI.Comm, shards: ShardSet, model: nn.Module, lr: float, batch: int, epochs: int, clients: list[int]
    ) -> None:
        self.comm, self.model, self.batch, self.epochs = comm, model, batch, epochs
        self.optimizer = torch.optim.SGD(model.parameters(), lr=lr)
        self.received = parameters_to_vector(model.parameters()).detach().clone()
        self.total = torch.zeros_like(self.received)
        self.data = {client: self._columns(shards, client) for client in clients}
        x, y = shards.test()
        self.test = (x.float() * shards.scale, y)

    def _columns(self, shards: ShardSet, client: int) -> tuple[torch.Tensor, torch.Tensor]:
        x, y = shards.train(client)
        return x.float() * shards.scale, y.clone()

    def round(self, cohort: np.ndarray) -> None:
        """Train this rank's every n-th client of the cohort, and average over all ranks."""
        mine = cohort[self.comm.rank :: self.comm.size]
        everyone = sum(len(self.data[int(client)][1]) for client in cohort)
        self.total.zero_()
        for client in mine:
            x, y = self.data[int(client)]
            vector_to_parameters(self.received, self.model.parameters())
            for _ in range(self.epochs):
                order = torch.randperm(len(y))
                for start in range(0, len(y), self.batch):
                    chosen = order[start : start + self.batch]
                    self.optimizer.zero_grad()
                    loss = functional.cross_entropy(self.model(x[chosen]), y[chosen])
                    loss.backward()
                    self.optimizer.step()
            with torch.no_grad():
                self.total.add_(parameters_to_vector(self.model.parameters()), alpha=len(y) / everyone)
        self.comm.Allreduce(MPI.IN_PLACE, self.total.numpy(), op=MPI.SUM)
        self.received.copy_(self.total)

    @torch.no_grad()
    def evaluate(self) -> float:
        """Test accuracy of the averaged model, in batches of 1024."""
        vector_to_parameters(self.received, self.model.parameters())
        x, y = self.test
        right = sum(
            int((self.model(part).argmax(-1) == truth).sum())
            for part, truth in zip(x.split(1024), y.split(1024), strict=True)
        )
        return right / len(y)


def timed(floor: Floor | None, world: MPI.Comm, rounds: int, work: Callable[[Floor, int], None]) -> float:
    """Median seconds of `work(floor, round)` on the floor's ranks, told to the server, which sleeps meanwhile."""
    spent = np.zeros(1)
    if floor is not None:
        times = []
        for round in range(1, rounds + 1):
            torch.manual_seed(round)
            began = time.perf_counter()
            work(floor, round)
            floor.comm.Barrier()
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
