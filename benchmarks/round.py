"""A whole round against the floor, on the FedAvg paper's MNIST: time by interleaved pairs, and the memory of each rank.

    python benchmarks/round.py [--source FOLDER_OF_IDX_FILES] [--model mlp|cnn] [--pairs 8] [--rounds 5]

One server and two clients; the floor runs on the two client ranks while the server sleeps.  A pair is `--rounds` rounds
of each, in turn; times are wall clock from one round's end to the next, at the server and at a floor's rank.  Ours
keeps its journal and a checkpoint every round, the floor keeps nothing.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch
from floor import Floor
from machine import memory, mnist, on_ranks

import fedmpi
from fedmpi.data import ShardSet
from fedmpi.models import MODELS
from fedmpi.rounds.cohort import draw


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--source")
    arguments.add_argument("--model", choices=("mlp", "cnn"), default="mlp")
    arguments.add_argument("--pairs", type=int, default=8)
    arguments.add_argument("--rounds", type=int, default=5)
    given = arguments.parse_args()
    folder = mnist(given.source)
    on_ranks(3)
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    shards = ShardSet.open(folder)
    epochs = {"mlp": 1, "cnn": 5}[given.model]
    clients = world.Split(0 if world.rank == 0 else 1, world.rank)
    floor = None
    if world.rank:
        module = MODELS[given.model](shape=shards.shape, outputs=10)
        floor = Floor(clients, shards, module, 0.1, 10, epochs, list(range(shards.clients)))
    for evaluated in (False, True):
        job = {
            "rounds": given.rounds + 2,
            "seed": 1,
            "data": {"shards": str(folder)},
            "cohort": {"size": 10},
            "model": {"name": given.model},
            "local": {"lr": 0.1, "batch": 10, "epochs": epochs},
            "evaluation": {"every": int(evaluated), "clients": False},
        }
        ours, theirs = [], []
        for pair in range(given.pairs + 1):
            first = _ours(job, world, given.rounds, pair)
            second = _floor(floor, world, shards, given.rounds, evaluated, pair)
            if pair and world.rank == 0:  # the first pair warms up
                ours.append(first)
                theirs.append(second)
        if world.rank == 0:
            ratios = sorted(mine / its for mine, its in zip(ours, theirs, strict=True))
            print(
                f"{given.model}, evaluation {'on ' if evaluated else 'off'}: "
                f"round {statistics.median(ours):.3f} s, floor {statistics.median(theirs):.3f} s, "
                f"ratio {statistics.median(ratios):.3f} (pairs {ratios[0]:.3f} to {ratios[-1]:.3f})",
                flush=True,
            )
    floor = None
    for rank, used in enumerate(world.gather(memory()) or []):
        told = "server" if rank == 0 else "client, with the floor's copy of the data"
        print(f"rank {rank} ({told}): anonymous {used['anonymous']:.0f} MiB, PSS {used['pss']:.0f} MiB")


def _ours(job: dict, world: object, rounds: int, pair: int) -> float:
    """Median seconds from one round's line to the next's, at the server."""
    ends: list[float] = []
    told = {"out": "runs/benchmark-round", "overwrite": True}  # journal and a checkpoint every round, as by default
    fedmpi.train({**job, "seed": pair}, world, on_round=lambda line: ends.append(time.perf_counter()), **told)
    # The last line waits for the final score, and the first for two crossings: what lies between are rounds.
    return statistics.median(np.diff(ends[:-1])) if ends else 0.0


def _floor(floor: Floor | None, world: object, shards: ShardSet, rounds: int, evaluated: bool, pair: int) -> float:
    """Median seconds of the floor's rounds, told to the server, which sleeps meanwhile."""
    spent = np.zeros(1)
    if floor is not None:
        times = []
        for round in range(1, rounds + 1):
            began = time.perf_counter()
            torch.manual_seed(round)
            floor.round(draw(pair, round, shards.clients, 10))
            if evaluated and floor.comm.rank == 0:
                floor.evaluate()
            floor.comm.Barrier()
            times.append(time.perf_counter() - began)
        spent[0] = statistics.median(times)
    waiting = world.Ibarrier()
    while not waiting.Test():
        time.sleep(1e-3)
    world.Bcast(spent, root=1)
    return float(spent[0])


if __name__ == "__main__":
    main()
