"""A round by each engine against the floor, which runs in processes of its own with nothing of ours beside it.

    python benchmarks/engines.py [--rows 2nn logistic-10 ...] [--pairs 5]

The floor is an eager PyTorch loop, torch's SGD and one Allreduce a round on two ranks (fedmpi/bench/floor.py).  Ours
has one server and two clients' ranks on the same two cores, and keeps its journal and a checkpoint every round.
Examples are drawn at random, in the shapes of MNIST and CIFAR-10: the time is the same.  The floor and each engine run
in turn, each in new processes; a ratio is of medians, and in brackets the range of those of each turn.  The same for a
job of one's own: `fedmpi bench JOB`.
"""

from __future__ import annotations

import argparse
import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

from machine import machine
from sets import DATA

from fedmpi.bench.suite import Suite
from fedmpi.bench.work import WORK, Work
from fedmpi.job import read
from fedmpi.plan import assemble
from fedmpi.rounds.loops import LOOPS

ENGINES = {name: f'"{name}"' for name in ("sequential", "traced", "batched")}


@dataclass(frozen=True)
class Row:
    """A row of the table: a work, so many rounds of it."""

    work: Work
    rounds: int
    engines: dict[str, str] = field(default_factory=lambda: ENGINES)
    keep: bool = True  # a run folder, with its checkpoints


CIFAR = Work(
    "pfl-research's CNN on CIFAR-10's shape",
    1000, 50, 50, (3, 32, 32), 10, "benchmarks.networks:pfl_cnn", {"lr": 0.1, "batch": 10, "epochs": 1},
)  # fmt: skip
ROWS = {
    "2nn": Row(WORK["2nn"], 12),
    "cifar-cnn": Row(CIFAR, 4),
    "logistic-10": Row(dataclasses.replace(WORK["logistic"], cohort=10), 40),
    "logistic-100": Row(
        WORK["logistic"], 20, engines={**ENGINES, "batched, 50": '{name = "batched", clients = 50}'}
    ),
    "10 M": Row(WORK["wide"], 12, keep=False),
    "10 M, kept": Row(WORK["wide"], 12),
}  # fmt: skip


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--rows", nargs="*", choices=ROWS, default=list(ROWS))
    arguments.add_argument("--pairs", type=int, default=5)
    given = arguments.parse_args()
    print(machine(), flush=True)
    for name in given.rows:
        row, folder = ROWS[name], DATA / f"engines-{name.replace(',', '').replace(' ', '-')}"
        job = row.work.make(name, folder)
        plan = assemble(read(job), loops=LOOPS)
        suite = Suite(
            job, (), 3, row.engines, given.pairs, row.rounds, (), Path(folder), None, lambda step: None, row.keep
        )
        found = suite.compare(plan)
        print(f"{name}: floor {found['floor']['seconds']:.4f} s a round", flush=True)
        for engine, figures in found["engines"].items():
            low, high = figures["ratios"]
            print(
                f"  {engine:14} {figures['seconds']:.4f} s = {figures['ratio']:.2f} ({low:.2f} to {high:.2f}); "
                f"{figures['first']:.1f} s from the start to the first round",
                flush=True,
            )


if __name__ == "__main__":
    main()
