"""What each strategy costs beside FedAvg: seconds and bytes of a round of the 2NN on MNIST, in one run, in pairs.

    python benchmarks/strategies.py [--source FOLDER_OF_IDX_FILES] [--strategies scaffold ...] [--pairs 3] [--rounds 6]
                                    [--against CHECKOUT]

One server and two clients' ranks; ten of a hundred clients a round, one epoch in batches of ten; journal, checkpoints
and clients' memory are written as by default, and nothing is scored.  A pair is FedAvg's run and then the strategy's;
with `--against` it is the strategy's by this checkout and by another, each in new processes (running.py).
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

from floor import ours
from machine import machine
from running import compare, lines, on_ranks
from sets import mnist

from fedmpi.strategies import STRATEGIES

ABSENT = {"fedbn": "the 2NN has no normalisation layers"}
OUT = Path("runs/benchmark-strategies")
RATES = {"fedadagrad": 0.01, "fedadam": 0.01, "fedyogi": 0.01}  # of the server: what keeps the 2NN from diverging


def job(folder: str, strategy: str, rounds: int) -> dict[str, Any]:
    local = {"lr": 0.05, "batch": 10, "epochs": 1}
    return {
        "rounds": rounds + 2,
        "seed": 1,
        "threads": 1,
        "data": {"shards": folder},
        "cohort": {"size": 10},
        "model": "mlp",
        "local": {"lr": 0.05} if strategy in ("fedsgd", "normalised-sgd") else local,
        "server": {"lr": RATES.get(strategy, 1.0)},
        "strategy": strategy,
        "evaluation": {"every": 0, "clients": False},
    }


def main() -> None:
    known = [name for name in STRATEGIES if name not in ABSENT]
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--source")
    arguments.add_argument("--strategies", nargs="+", choices=known, default=known)
    arguments.add_argument("--pairs", type=int, default=3)
    arguments.add_argument("--rounds", type=int, default=6)
    arguments.add_argument("--against", type=Path)
    given = arguments.parse_args()
    folder = str(mnist(given.source).resolve())
    if given.against:
        print(machine())
        jobs = {strategy: job(folder, strategy, given.rounds) for strategy in given.strategies}
        compare(jobs, given.against, ranks=3, pairs=given.pairs)
        return
    on_ranks(3)
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    bytes_of: dict[str, dict[str, int]] = {}

    def run(strategy: str) -> float:
        seconds = ours(job(folder, strategy, given.rounds), world, out=OUT, overwrite=True)
        if world.rank == 0:
            bytes_of[strategy] = lines(OUT)[0]["bytes"]
        return seconds

    run("fedavg")  # warms up
    if world.rank == 0:
        print(f"{'':16} {'s a round':>10} {'of FedAvg':>10} {'pairs':>15} {'down':>12} {'up':>12}  bytes a rank, round")
    for strategy in given.strategies:
        pairs = [(run("fedavg"), run(strategy)) for _ in range(given.pairs)]
        if world.rank == 0:
            ratios = sorted(mine / base for base, mine in pairs)
            spread = f"{ratios[0]:.2f} to {ratios[-1]:.2f}"
            print(
                f"{strategy:16} {statistics.median(mine for _, mine in pairs):10.3f} {statistics.median(ratios):10.2f} "
                f"{spread:>15} {bytes_of[strategy]['down']:12,} {bytes_of[strategy]['up']:12,}",
                flush=True,
            )
    if world.rank == 0:
        for name, why in ABSENT.items():
            print(f"{name}: not run, {why}")


if __name__ == "__main__":
    main()
