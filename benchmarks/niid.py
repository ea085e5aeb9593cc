"""NIID-Bench's MNIST rows (Li et al. 2022): ten clients, ten epochs in batches of 64, LeNet; best of 50 rounds.

    python benchmarks/niid.py [--source FOLDER_OF_IDX_FILES] [--split labels dirichlet] [--strategies fedavg scaffold]
                              [--rounds 50] [--ranks 3]

"labels": two labels a client; "dirichlet": class-wise, 0.5.  Published, as Flower's baseline reproduced them: the best
test accuracy, labels FedAvg 96.9, SCAFFOLD 96.9, FedProx 96.9, FedNova 96.7; dirichlet 98.9, 99.1, 99.0, 98.0.
All clients take part; SGD with momentum 0.9 at 0.01, begun anew by each client in each round.  A run that was cut short
goes on: half an hour of one core each.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from machine import machine
from running import command, lines
from sets import DATA

JOB = "jobs/mnist-labels.toml"
SPLITS = {"labels": ["--partition", "labels"], "dirichlet": ["--partition", "dirichlet", "--alpha", "0.5"]}
PUBLISHED = {
    "labels": {"fedavg": 96.86, "scaffold": 96.92, "fedprox": 96.85, "fednova": 96.65},
    "dirichlet": {"fedavg": 98.89, "scaffold": 99.07, "fedprox": 99.02, "fednova": 98.03},
}


def shards(split: str, source: str | None) -> Path:
    """The shard set, made the first time."""
    folder = DATA / f"mnist-{split}"
    if not folder.exists():
        if source is None:
            raise SystemExit(f"{folder} is not there: give --source, the folder of MNIST's idx files")
        command("shard", "idx", "--source", source, "--clients", "10", *SPLITS[split], "--out", str(folder))
    return folder


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--source")
    arguments.add_argument("--split", nargs="+", choices=SPLITS, default=list(SPLITS))
    arguments.add_argument("--strategies", nargs="+", default=["fedavg", "scaffold"])
    arguments.add_argument("--rounds", default="50")
    arguments.add_argument("--ranks", default="3")
    given = arguments.parse_args()
    print(machine())
    for split in given.split:
        folder = shards(split, given.source)
        for strategy in given.strategies:
            out = Path("runs") / f"niid-{split}-{strategy}"
            fields = {"strategy": strategy, "data.shards": str(folder), "rounds": given.rounds, "threads": "1"}
            told = [word for field, value in fields.items() for word in ("--set", f"{field}={value}")]
            command("train", JOB, "-n", given.ranks, "--out", str(out), "--resume", "--quiet", *told)
            journal = lines(out)
            accuracies = [100 * line["evaluation"]["test"]["accuracy"] for line in journal]
            published = PUBLISHED[split].get(strategy)
            print(
                f"{split}, {strategy}: best of {len(accuracies)} rounds {max(accuracies):.2f} % "
                f"(round {accuracies.index(max(accuracies)) + 1}), last {accuracies[-1]:.2f} %; "
                f"published {published if published else '-'}; {journal[-1]['seconds']['elapsed'] / 60:.0f} min",
                flush=True,
            )


if __name__ == "__main__":
    main()
