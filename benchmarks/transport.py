"""A model of 10 million parameters, 8 clients a round, one step of one example each, beside bare collectives.

    python benchmarks/transport.py [--pairs 5] [--rounds 8] [--against CHECKOUT]

One server and two clients.  Bare: a plain `Bcast` and a plain `Reduce` of the same bytes and dtype on the same ranks,
in turn with ours.  Floor: the eager loop of floor.py on the two client ranks.  With
`--against` ours is measured beside another checkout's code instead, each in new processes (running.py).
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
from floor import Floor, ours, timed
from machine import machine
from running import compare, memory, on_ranks
from sets import DATA

import fedmpi
from fedmpi import launch
from fedmpi.data import ShardSet
from fedmpi.models import MODELS

FEATURES, CLASSES, CLIENTS = 10_000, 1_000, 8  # 10,001,000 parameters


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--pairs", type=int, default=5)
    arguments.add_argument("--rounds", type=int, default=8)
    arguments.add_argument("--against", type=Path)
    given = arguments.parse_args()
    folder = (DATA / "wide").resolve()
    if launch.world() is None and not folder.exists():
        random = np.random.default_rng(0)
        clients = {
            f"{client}": (random.standard_normal((1, FEATURES), np.float32), np.array([client]))
            for client in range(CLIENTS)
        }
        fedmpi.write_shards(folder, clients, holdout=0, classes=tuple(str(name) for name in range(CLASSES)))
    job = {
        "rounds": given.rounds + 2,
        "threads": 1,
        "data": {"shards": str(folder)},
        "model": {"name": "logistic"},
        "local": {"lr": 0.1, "batch": 1, "steps": 1},
        "evaluation": {"every": 0, "clients": False},
        "checkpoint": {"every": 0},
    }
    fixed = {**job, "aggregation": {"stages": ["fixed-point"]}}
    if given.against:
        print(machine())
        compare({"float32": job, "fixed-point": fixed}, given.against, ranks=3, pairs=given.pairs, keep=False)
        return
    on_ranks(3)
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    shards = ShardSet.open(folder)
    inner = world.Split(0 if world.rank == 0 else 1, world.rank)
    names = ("ours", "ours, fixed-point", "bare float32", "bare int64", "floor")
    table: dict[str, list[float]] = {name: [] for name in names}
    module = MODELS["logistic"](shape=shards.shape, outputs=CLASSES)
    floor = Floor(inner, shards, module, 0.1, 1, 1, list(range(CLIENTS))) if world.rank else None
    size = sum(parameter.numel() for parameter in module.parameters())
    for pair in range(given.pairs + 1):
        found = {
            "ours": ours(job, world),
            "bare float32": _bare(world, size, np.float32, given.rounds),
            "ours, fixed-point": ours(fixed, world),
            "bare int64": _bare(world, size, np.int64, given.rounds),
            "floor": timed(floor, world, given.rounds, lambda floor, round: floor.round(np.arange(CLIENTS))),
        }
        if pair:  # the first warms up
            for name, seconds in found.items():
                table[name].append(seconds)
    if world.rank == 0:
        for name, seconds in table.items():
            print(f"{name:<18} {statistics.median(seconds):.3f} s a round ({min(seconds):.3f} to {max(seconds):.3f})")
        for one, other in (("ours", "floor"), ("ours", "bare float32"), ("ours, fixed-point", "bare int64")):
            ratios = sorted(a / b for a, b in zip(table[one], table[other], strict=True))
            print(f"{one} / {other}: {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")
    for rank, used in enumerate(world.gather(memory()) or []):
        told = f"with the floor's model; one model is {size * 4 / 2**20:.0f} MiB"
        print(f"rank {rank}: anonymous {used['anonymous']:.0f} MiB, {told}")


def _bare(world: object, size: int, dtype: type, rounds: int) -> float:
    """One Bcast of the float32 model and one Reduce of `dtype`, with nothing between to wait for."""
    from mpi4py import MPI

    down, up = np.ones(size, np.float32), np.ones(size, dtype)
    times = []
    for _ in range(rounds):
        world.Barrier()
        began = time.perf_counter()
        world.Bcast(down, root=0)
        world.Reduce(MPI.IN_PLACE if world.rank == 0 else up, up if world.rank == 0 else None, op=MPI.SUM, root=0)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


if __name__ == "__main__":
    main()
