"""FLUTE's published row: logistic regression on MNIST, 1,000 clients, 10 a round, 100 rounds, lr .03, batches of 10.

    python benchmarks/flute.py [--source FOLDER_OF_IDX_FILES] [--ranks 3] [--engine auto]

They say about 81 % after 1 min 35 s, and 3 min 9 s for FedML on MPI (FLUTE's README; their machine has a GPU).  Clients
are as FedProx's generator deals them (Li et al. 2020): 5 examples of each of two digits in a row, then log-normal
shares of the rest.  The time is that of the whole command, imports and the final scores among it.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import tomli_w
from machine import machine
from running import command, lines
from sets import DATA, mnist

import fedmpi
from fedmpi.data import ShardSet

CLIENTS, FEW = 1000, 5


def shards(source: str | None) -> Path:
    """The clients' shard set, made from the IID one's examples the first time."""
    folder = DATA / "mnist-power-law"
    if folder.exists():
        return folder.resolve()
    whole = ShardSet.open(mnist(source))
    pairs = [whole.train(client) for client in range(whole.clients)]
    x, y = (np.concatenate([np.asarray(pair[side]) for pair in pairs]) for side in (0, 1))
    random = np.random.default_rng(0)
    digits = [random.permutation(np.flatnonzero(y == digit)) for digit in range(10)]
    hands: list[list[int]] = [[] for _ in range(CLIENTS)]
    at = [0] * 10

    def deal(client: int, digit: int, count: int) -> None:
        if at[digit] + count < len(digits[digit]):
            hands[client] += digits[digit][at[digit] : at[digit] + count].tolist()
            at[digit] += count

    two = [(client, side, (client + side) % 10) for client in range(CLIENTS) for side in range(2)]
    for client, _, digit in two:
        deal(client, digit, FEW)
    shares = random.lognormal(0.0, 2.0, (10, CLIENTS // 10, 2))
    left = np.array([len(some) - CLIENTS * 2 * FEW // 10 for some in digits])
    counts = (left[:, None, None] * shares / shares.sum((1, 2), keepdims=True)).astype(int)
    for client, side, digit in two:
        deal(client, digit, int(counts[digit, client // 10, side]))
    clients = {f"client-{number}": (x[hand], y[hand]) for number, hand in enumerate(hands)}
    fedmpi.write_shards(folder, clients, holdout=0.1, classes=tuple(map(str, range(10))), scale=whole.scale)
    return folder.resolve()


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--source")
    arguments.add_argument("--ranks", default="3")
    arguments.add_argument("--engine", default="auto")
    given = arguments.parse_args()
    job = {
        "name": "flute",
        "rounds": 100,
        "seed": 1,
        "data": {"shards": str(shards(given.source))},
        "cohort": {"size": 10},
        "model": {"name": "logistic"},
        "local": {"lr": 0.03, "batch": 10, "epochs": 1, "engine": given.engine},
        "evaluation": {"every": 20},
    }
    path, out = Path("runs/flute.toml"), Path("runs/flute")
    path.parent.mkdir(exist_ok=True)
    path.write_text(tomli_w.dumps(job))
    print(machine())
    began = time.perf_counter()
    command("train", str(path), "-n", given.ranks, "--out", str(out), "--overwrite", "--quiet")
    took, last = time.perf_counter() - began, lines(out)[-1]
    scores = [f"{kind} {table['accuracy']}" for kind, table in last["evaluation"].items()]
    print(f"{took:.1f} s in all, {last['seconds']['elapsed']:.1f} s of them rounds; {'; '.join(scores)}")


if __name__ == "__main__":
    main()
