"""A round by each engine against the floor, which runs in processes of its own with nothing of ours beside it.


The floor is an eager PyTorch loop, torch's SGD and one Allreduce a round on two ranks (floor.py).  Ours has one server
and two clients' ranks on the same two cores, and keeps its journal and a checkpoint every round.  Examples are drawn at
random, in the shapes of MNIST and CIFAR-10: the time is the same.  The floor and each engine run in turn, each in new
processes; a ratio is of medians, and in brackets the range of those of each turn.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from floor import Floor
from machine import machine
from running import environment, measure, start
from sets import DATA

ENGINES: dict[str, dict[str, Any]] = {
    "sequential": {"name": "sequential"},
    "traced": {"name": "traced"},
    "batched": {"name": "batched"},
}


@dataclass(frozen=True)
class Row:
    """A row of the table: clients, each of so many examples, `cohort` of them a round."""

    clients: int
    examples: int
    cohort: int
    shape: tuple[int, ...]
    classes: int
    model: str
    local: dict[str, Any]
    rounds: int
    stored: str = "uint8"
    engines: dict[str, dict[str, Any]] = field(default_factory=lambda: ENGINES)
    keep: bool = True  # a run folder, with its checkpoints

    def folder(self, name: str) -> Path:
        """Return the row's shard set, made where it is not there."""
        folder = (DATA / f"engines-{name}").resolve()
        if not folder.exists():
            import fedmpi

            random = np.random.default_rng(0)
            clients = {}
            for client in range(self.clients):
                x = (random.random((self.examples, *self.shape)) < 0.1).astype(self.stored)
                clients[str(client)] = (x, random.integers(0, self.classes, self.examples))
            labels = tuple(str(label) for label in range(self.classes))
            fedmpi.write_shards(folder, clients, holdout=0, classes=labels)
        return folder

    def job(self, name: str, engine: dict[str, Any]) -> dict[str, Any]:
        return {
            "rounds": self.rounds + 2,
            "seed": 1,
            "threads": 1,
            "data": {"shards": str(self.folder(name))},
            "cohort": {"size": self.cohort},
            "model": {"name": self.model},
            "local": {**self.local, "engine": engine},
            "evaluation": {"every": 0, "clients": False},
        }


WIDE = {"lr": 0.1, "batch": 1, "steps": 1}
ROWS = {
    "2nn": Row(100, 600, 10, (784,), 10, "mlp", {"lr": 0.1, "batch": 10, "epochs": 1}, 12),
    "cifar-cnn": Row(
        1000, 50, 50, (3, 32, 32), 10, "benchmarks.networks:pfl_cnn", {"lr": 0.1, "batch": 10, "epochs": 1}, 4
    ),
    "logistic-10": Row(1000, 60, 10, (784,), 10, "logistic", {"lr": 0.03, "batch": 10, "epochs": 1}, 40),
    "logistic-100": Row(
        1000, 60, 100, (784,), 10, "logistic", {"lr": 0.03, "batch": 10, "epochs": 1}, 20,
        engines={**ENGINES, "batched, 50": {"name": "batched", "clients": 50}},
    ),
    "10 M": Row(8, 1, 8, (10_000,), 1000, "logistic", WIDE, 12, "float32", keep=False),
    "10 M, kept": Row(8, 1, 8, (10_000,), 1000, "logistic", WIDE, 12, "float32"),
}  # fmt: skip


def floor(name: str) -> float:
    """Return the floor's median seconds of a round, in processes of its own."""
    done = subprocess.run(
        [*start(2, [str(Path(__file__).resolve()), "--floor", name])],
        env=environment(2), capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(done.stderr)
    return float(json.loads(done.stdout.splitlines()[-1]))


def run_floor(name: str) -> None:
    """Run the floor on this rank of two, and print its seconds on the first."""
    import time

    import torch
    from mpi4py import MPI

    from fedmpi.data import ShardSet
    from fedmpi.job.imported import imported
    from fedmpi.models import MODELS

    torch.set_num_threads(1)
    row, world = ROWS[name], MPI.COMM_WORLD
    shards = ShardSet.open(row.folder(name))
    make = MODELS[row.model] if row.model in MODELS else imported(row.model, "model.name")
    module = make(shape=shards.shape, outputs=row.classes)
    local = row.local
    mine = Floor(world, shards, module, local["lr"], local["batch"], 1, list(range(row.clients)))
    times = []
    for round in range(row.rounds + 1):
        torch.manual_seed(round)
        cohort = np.random.default_rng(round).choice(row.clients, row.cohort, replace=False)
        world.Barrier()
        began = time.perf_counter()
        mine.round(np.sort(cohort))
        world.Barrier()
        times.append(time.perf_counter() - began)
    if world.rank == 0:
        print(json.dumps(statistics.median(times[1:])))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--rows", nargs="*", choices=ROWS, default=list(ROWS))
    arguments.add_argument("--pairs", type=int, default=5)
    arguments.add_argument("--floor", choices=ROWS, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.floor:
        run_floor(given.floor)
        return
    print(machine(), flush=True)
    for name in given.rows:
        row = ROWS[name]
        row.folder(name)
        floors: list[float] = []
        ours: dict[str, list[float]] = {engine: [] for engine in row.engines}
        memory: dict[str, list[float]] = {}
        for _ in range(given.pairs):
            floors.append(floor(name))
            for engine, component in row.engines.items():
                one = measure(row.job(name, component), 3, keep=row.keep)
                ours[engine].append(one.round)
                memory[engine] = one.peak
        print(f"{name}: floor {statistics.median(floors):.4f} s a round", flush=True)
        for engine, times in ours.items():
            ratios = sorted(one / other for one, other in zip(times, floors, strict=True))
            ratio = statistics.median(times) / statistics.median(floors)
            peaks = ", ".join(f"{peak:.0f}" for peak in memory[engine])
            print(
                f"  {engine:14} {statistics.median(times):.4f} s = {ratio:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}); "
                f"peak {peaks} MiB",
                flush=True,
            )


if __name__ == "__main__":
    sys.exit(main())
