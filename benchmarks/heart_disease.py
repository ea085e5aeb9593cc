"""FLamby's heart-disease federation: four hospitals, each a client (Ogier du Terrail et al. 2022).

    python benchmarks/heart_disease.py [--source FOLDER] [--strategies fedavg fedyogi ...] [--seeds 42 ...] [--ranks 3]

`--source` is the folder of UCI's processed.*.data and of flamby_split.csv, which says what each hospital trains on;
it is needed the first time.  Runs jobs/heart-disease.toml with each strategy and seed and prints the four hospitals'
mean accuracy and AUROC on what they keep aside, FLamby's published accuracy beside them, and how far the weights came
from those of a plain NumPy loop (heart_loop.py) with the same start and the same batches.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import Any

import numpy as np
import torch
from heart_loop import federate
from numpy.typing import NDArray
from running import on_ranks
from sets import DATA

import fedmpi
from fedmpi.data import ShardSet
from fedmpi.flow import key
from fedmpi.job import Job, read

JOB = Path("jobs/heart-disease.toml")
HOSPITALS = ("cleveland", "hungarian", "switzerland", "va")
LABEL = 13  # above 0: a diseased artery
NUMBERS = (0, 1, 3, 4, 5, 7, 8, 9)
CATEGORIES = (2, 6)  # kind of chest pain, resting electrocardiogram; 10 to 12 are hardly known outside Cleveland
ADAPTIVE = ("strategy.beta1=0.9", "strategy.tau=1e-8")
CLOSE = 1e-5  # what float32 may add up to between fedmpi's weights and the loop's, which are double

# What FLamby tuned, and its accuracy in per cent: mean and standard deviation over the seeds 42 to 46.
SETTINGS: dict[str, tuple[tuple[str, ...], str]] = {
    "fedavg": (("local.lr=0.001",), "68.5 +- 2.8"),
    "fedprox": (("local.lr=0.001", "strategy.mu=0.01"), "68.5 +- 2.8"),
    "scaffold": (("local.lr=0.001", "strategy.option=2"), "68.4 +- 2.8"),
    "fedadam": (("local.lr=0.01", "server.lr=0.01", *ADAPTIVE, "strategy.beta2=0.999"), "72.5 +- 1.4"),
    "fedyogi": (("local.lr=0.003162", "server.lr=0.01", *ADAPTIVE, "strategy.beta2=0.999"), "73.1 +- 1.3"),
    "fedadagrad": (("local.lr=0.003162", "server.lr=0.316228", *ADAPTIVE), "73.1 +- 1.3"),
}


def hospitals(source: Path) -> dict[str, tuple[NDArray[Any], ...]]:
    """Each hospital's x `(n, 13)` float32 and y `(n,)` of 0 and 1, then the same of what it keeps aside.

    Every number is standardised by the hospital's own training examples.  The order of the features is FLamby's, so
    that a seed's first weights are too.
    """
    with (source / "flamby_split.csv").open(newline="") as file:
        split = {(row["center"], int(row["row_in_processed_file"])): row["split"] for row in csv.DictReader(file)}
    found = {}
    for name in HOSPITALS:
        table = np.genfromtxt(source / f"processed.{name}.data", delimiter=",")[:, [*range(10), LABEL]]
        whole = np.flatnonzero(~np.isnan(table).any(axis=1))  # "?" was read as NaN
        found[name] = table[whole], np.array([split[name, row] == "train" for row in whole])
    every = np.concatenate([table for table, _ in found.values()])
    kinds = [(column, kind) for column in CATEGORIES for kind in np.unique(every[:, column])[1:]]
    return {name: _prepared(table, train, kinds) for name, (table, train) in found.items()}


def _prepared(table: NDArray[Any], train: NDArray[Any], kinds: list[tuple[int, float]]) -> tuple[NDArray[Any], ...]:
    x = np.column_stack([table[:, NUMBERS], *(table[:, column] == kind for column, kind in kinds)])
    spread = x[train].std(axis=0, ddof=1)
    x = (x - x[train].mean(axis=0)) / np.where(spread > 0, spread, 1)  # Switzerland's cholesterol is 0 throughout
    x, y = x.astype(np.float32), (table[:, -1] > 0).astype(np.int64)
    return x[train], y[train], x[~train], y[~train]


def start(seed: int) -> NDArray[np.float64]:
    """The weights and the bias `(14,)` of torch's linear layer for a seed, which FLamby and fedmpi begin from."""
    torch.manual_seed(seed)
    return flat(torch.nn.Linear(13, 1))


def flat(model: torch.nn.Module) -> NDArray[np.float64]:
    return np.concatenate([parameter.detach().double().flatten() for parameter in model.parameters()])


def loop(job: Job, shards: ShardSet) -> NDArray[np.float64]:
    """What the NumPy loop makes of a job: weights and bias `(14,)`."""
    steps = job.local.steps

    def order(round: int, client: int, examples: int) -> list[NDArray[np.int64]]:
        generator = torch.Generator().manual_seed(key(job.seed, round, client))
        found: list[NDArray[np.int64]] = []
        while len(found) < steps:
            found += [rows.numpy() for rows in torch.randperm(examples, generator=generator).split(job.local.batch)]
        return found[:steps]

    pairs = [shards.train(client) for client in range(shards.clients)]
    return federate(
        start(job.seed),
        [(x.double().numpy(), y.double().numpy()) for x, y in pairs],
        order,
        strategy=job.strategy.name,
        options=job.strategy.options,
        rounds=job.rounds,
        lr=job.local.lr,
        server_lr=job.server.lr,
    )


def majority(shards: ShardSet) -> float:
    """Accuracy in per cent of telling each hospital's patients what most of them have."""
    sick = [float(shards.heldout(client)[1].double().mean()) for client in range(shards.clients)]
    return 100 * float(np.mean([max(part, 1 - part) for part in sick]))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--source", type=Path)
    arguments.add_argument("--out", type=Path, default=DATA / "heart-disease")
    arguments.add_argument("--strategies", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    arguments.add_argument("--seeds", type=int, nargs="+", default=[42, 43, 44, 45, 46])
    arguments.add_argument("--ranks", type=int, default=3)
    given = arguments.parse_args()
    if not given.out.exists():
        if given.source is None:
            raise SystemExit(f"{given.out} is not there: give --source, the folder of the hospitals' files")
        fedmpi.write_shards(given.out, hospitals(given.source), task="binary", classes=("healthy", "diseased"))
    on_ranks(given.ranks)
    from mpi4py import MPI

    world, shards = MPI.COMM_WORLD, ShardSet.open(given.out)
    if world.rank == 0:
        print(f"{len(given.seeds)} seeds, per cent   accuracy       AUROC  FLamby's accuracy  weights from NumPy's")
    farthest = 0.0
    for name in given.strategies:
        settings, published = SETTINGS[name]
        scores, apart = [], 0.0
        for seed in given.seeds:
            job = read(JOB, [f"strategy.name={name}", *settings, f"seed={seed}"])
            run = fedmpi.train(job, world, shards=shards)
            if world.rank == 0:
                clients = run.lines[-1]["evaluation"]["clients"]
                scores.append([100 * clients[metric]["mean"] for metric in ("accuracy", "auroc")])
                apart = max(apart, float(np.abs(flat(run.model) - loop(job, shards)).max()))
        if world.rank == 0:
            told = [f"{of.mean():.1f} +- {np.std(of, ddof=min(1, len(of) - 1)):.1f}" for of in np.array(scores).T]
            print(f"{name:17} {told[0]:>11} {told[1]:>11}  {published:>17}  {apart:>20.1e}", flush=True)
        farthest = max(farthest, apart)
    if world.rank == 0:
        print(f"majority class    {majority(shards):11.1f}")
        if farthest > CLOSE:
            raise SystemExit(f"the weights are {farthest:.1e} from the NumPy loop's; float32 explains {CLOSE:.0e}")


if __name__ == "__main__":
    main()
