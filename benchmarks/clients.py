"""Many clients: 100,000 of 10 examples each, 100 a round; start-up time and anonymous memory per rank.

    python benchmarks/clients.py [--clients 1000 10000 100000] [--rounds 10]

The same job over sets of growing size, each in a launch of its own: from the start of mpirun to the first round's end,
seconds a round, and each rank's anonymous memory, which should not grow with the number of clients.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time

import numpy as np
from machine import DATA, environment, machine, memory, start

import fedmpi
from fedmpi import launch


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--clients", type=int, nargs="+", default=[1000, 10_000, 100_000])
    arguments.add_argument("--rounds", type=int, default=10)
    given = arguments.parse_args()
    if launch.world() is not None:
        _rank(given.clients[0], given.rounds)
        return
    print(machine())
    for clients in given.clients:
        folder = DATA / f"many-{clients}"
        if not folder.exists():
            began = time.perf_counter()
            random = np.random.default_rng(clients)
            x, y = random.standard_normal((clients * 10, 20), np.float32), random.integers(0, 2, clients * 10)
            arrays = {f"c{at}": (x[at * 10 : at * 10 + 10], y[at * 10 : at * 10 + 10]) for at in range(clients)}
            fedmpi.write_shards(folder, arrays, holdout=0.2, classes=("0", "1"))
            print(f"{clients} clients written in {time.perf_counter() - began:.1f} s")
        words = [sys.argv[0], "--clients", str(clients), "--rounds", str(given.rounds)]
        told = {**environment(3), "BEGAN": str(time.time())}
        done = subprocess.run(start(3, words), env=told, check=True, capture_output=True, text=True)
        found = json.loads(done.stdout.splitlines()[-1])
        each = ", ".join(f"{used:.1f}" for used in found["anonymous"])
        print(
            f"{clients:>7} clients: first round ended {found['first']:.1f} s after mpirun's start (imports alone "
            f"{found['imports']:.1f} s), {found['round'] * 1000:.0f} ms a round; anonymous MiB per rank {each}",
            flush=True,
        )


def _rank(clients: int, rounds: int) -> None:
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    import torch

    import fedmpi.rounds

    torch.set_num_threads(1)
    assert fedmpi.rounds.train  # all that a run imports, before its own start
    began = float(os.environ["BEGAN"])
    imports = time.time() - began
    job = {
        "rounds": rounds,
        "data": {"shards": str(DATA / f"many-{clients}")},
        "cohort": {"size": 100},
        "model": {"name": "logistic"},
        "local": {"lr": 0.1, "batch": 10, "epochs": 1},
        "evaluation": {"every": 0, "clients": False},
    }
    ends: list[float] = []
    fedmpi.train(job, world, on_round=lambda line: ends.append(time.time()))
    everyone = world.gather(memory()["anonymous"])
    if everyone is not None:
        found = {"first": ends[0] - began, "imports": imports, "round": float(np.median(np.diff(ends[:-1])))}
        print(json.dumps({**found, "anonymous": everyone}))


if __name__ == "__main__":
    main()
