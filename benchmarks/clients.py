"""Many clients: 100,000 of 10 examples each, 100 a round; start-up time and anonymous memory per rank.

    python benchmarks/clients.py [--clients 1000 10000 100000] [--cohort 100] [--rounds 10]
                                 [--against CHECKOUT [--pairs 3]]

The same job over sets of growing size, each in a launch of its own: from the start of mpirun to the first round's end,
seconds a round, and each rank's anonymous memory, which should not grow with the number of clients.  With `--against`
the same beside another checkout's code (running.py).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine
from running import compare, measure
from sets import DATA

import fedmpi


def shards(clients: int) -> Path:
    """The shard set, made the first time."""
    folder = DATA / f"many-{clients}"
    if not folder.exists():
        began = time.perf_counter()
        random = np.random.default_rng(clients)
        x, y = random.standard_normal((clients * 10, 20), np.float32), random.integers(0, 2, clients * 10)
        arrays = {f"c{at}": (x[at * 10 : at * 10 + 10], y[at * 10 : at * 10 + 10]) for at in range(clients)}
        fedmpi.write_shards(folder, arrays, holdout=0.2, classes=("0", "1"))
        print(f"{clients} clients written in {time.perf_counter() - began:.1f} s")
    return folder


def job(folder: Path, rounds: int, cohort: int) -> dict[str, Any]:
    return {
        "rounds": rounds,
        "threads": 1,
        "data": {"shards": str(folder.resolve())},
        "cohort": {"size": cohort},
        "model": {"name": "logistic"},
        "local": {"lr": 0.1, "batch": 10, "epochs": 1},
        "evaluation": {"every": 0, "clients": False},
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--clients", type=int, nargs="+", default=[1000, 10_000, 100_000])
    arguments.add_argument("--cohort", type=int, default=100)
    arguments.add_argument("--rounds", type=int, default=10)
    arguments.add_argument("--against", type=Path)
    arguments.add_argument("--pairs", type=int, default=3)
    given = arguments.parse_args()
    print(machine())
    jobs = {f"{clients} clients": job(shards(clients), given.rounds, given.cohort) for clients in given.clients}
    if given.against:
        compare(jobs, given.against, ranks=3, pairs=given.pairs, keep=False)
        return
    for name, settings in jobs.items():
        one = measure(settings, 3, keep=False)
        each = ", ".join(f"{used:.1f}" for used in one.anonymous)
        print(
            f"{name}: first round ended {one.first:.1f} s after mpirun's start (imports alone {one.imports:.1f} s), "
            f"{one.round * 1000:.0f} ms a round; anonymous MiB per rank {each}",
            flush=True,
        )


if __name__ == "__main__":
    main()
