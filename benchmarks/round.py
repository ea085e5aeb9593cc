"""A whole round against the floor, on the FedAvg paper's MNIST: time by interleaved pairs, and the memory of each rank.

    python benchmarks/round.py [--source FOLDER_OF_IDX_FILES] [--model mlp|cnn] [--pairs 8] [--rounds 5]
                               [--against CHECKOUT]

One server and two clients; the floor runs on the two client ranks while the server sleeps.  A pair is `--rounds` rounds
of each, in turn; times are wall clock from one round's end to the next, at the server and at a floor's rank.  Ours
keeps its journal and a checkpoint every round, the floor keeps nothing.  With `--against` the other half of a pair is
another checkout's code, each in new processes (running.py).
"""

from __future__ import annotations

import argparse
import statistics
from functools import partial
from pathlib import Path
from typing import Any

from floor import Floor, ours, timed
from machine import machine
from running import compare, memory, on_ranks
from sets import mnist

from fedmpi.cohort.samplers import Uniform
from fedmpi.data import ShardSet
from fedmpi.models import MODELS

EPOCHS = {"mlp": 1, "cnn": 5}


def job(folder: Path, model: str, rounds: int, evaluated: bool) -> dict[str, Any]:
    return {
        "rounds": rounds + 2,
        "seed": 1,
        "threads": 1,
        "data": {"shards": str(folder)},
        "cohort": {"size": 10},
        "model": {"name": model},
        "local": {"lr": 0.1, "batch": 10, "epochs": EPOCHS[model]},
        "evaluation": {"every": int(evaluated), "clients": False},
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--source")
    arguments.add_argument("--model", choices=EPOCHS, default="mlp")
    arguments.add_argument("--pairs", type=int, default=8)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--against", type=Path)
    given = arguments.parse_args()
    folder = mnist(given.source).resolve()
    if given.against:
        print(machine())
        jobs = {
            f"evaluation {'on' if on else 'off'}": job(folder, given.model, given.rounds, on) for on in (False, True)
        }
        compare(jobs, given.against, ranks=3, pairs=given.pairs)
        return
    on_ranks(3)
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    shards = ShardSet.open(folder)
    clients = world.Split(0 if world.rank == 0 else 1, world.rank)
    floor = None
    if world.rank:
        module = MODELS[given.model](shape=shards.shape, outputs=10)
        floor = Floor(clients, shards, module, 0.1, 10, EPOCHS[given.model], list(range(shards.clients)))
    for evaluated in (False, True):
        settings = job(folder, given.model, given.rounds, evaluated)
        mine, theirs = [], []
        for pair in range(given.pairs + 1):
            # Journal and a checkpoint every round, as by default.
            first = ours({**settings, "seed": pair}, world, out="runs/benchmark-round", overwrite=True)
            second = timed(floor, world, given.rounds, partial(_round, shards.clients, pair, evaluated))
            if pair and world.rank == 0:  # the first pair warms up
                mine.append(first)
                theirs.append(second)
        if world.rank == 0:
            ratios = sorted(one / other for one, other in zip(mine, theirs, strict=True))
            print(
                f"{given.model}, evaluation {'on ' if evaluated else 'off'}: "
                f"round {statistics.median(mine):.3f} s, floor {statistics.median(theirs):.3f} s, "
                f"ratio {statistics.median(ratios):.3f} (pairs {ratios[0]:.3f} to {ratios[-1]:.3f})",
                flush=True,
            )
    floor = None
    for rank, used in enumerate(world.gather(memory()) or []):
        told = "server" if rank == 0 else "client, with the floor's copy of the data"
        print(f"rank {rank} ({told}): anonymous {used['anonymous']:.0f} MiB, PSS {used['pss']:.0f} MiB")


def _round(clients: int, seed: int, evaluated: bool, floor: Floor, round: int) -> None:
    """One round of the floor, over the cohort that ours draws."""
    floor.round(Uniform(seed, clients, 10).draw(round).clients)
    if evaluated and floor.comm.rank == 0:
        floor.evaluate()


if __name__ == "__main__":
    main()
