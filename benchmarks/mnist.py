"""Rounds to the FedAvg paper's accuracies on MNIST (McMahan et al. 2017, tables 1 and 2).

    python benchmarks/mnist.py [--source FOLDER_OF_IDX_FILES] [--job 2nn|cnn] [--seed 1 ...] [--ranks 3]

The 2NN: 97 % within 100 rounds (paper: 87); the CNN: 99 % within 30 (paper: 20).  Runs the jobs under jobs/, as anyone
would, and prints the first round that met the target and the seconds until then.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from machine import machine
from running import command, lines
from sets import mnist

PAPER = {"2nn": (0.97, 87), "cnn": (0.99, 20)}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--source")
    arguments.add_argument("--job", choices=PAPER, action="append")
    arguments.add_argument("--seed", type=int, nargs="+", default=[1])
    arguments.add_argument("--ranks", default="3")
    given = arguments.parse_args()
    mnist(given.source)
    print(machine())
    for name in given.job or PAPER:
        target, paper = PAPER[name]
        for seed in given.seed:
            out = Path("runs") / f"mnist-{name}-s{seed}"
            words = ["train", f"jobs/mnist-{name}.toml", "-n", given.ranks, "--out", str(out), "--overwrite"]
            command(*words, "--set", f"seed={seed}", "--quiet")
            last = lines(out)[-1]
            accuracy = last["evaluation"]["test"]["accuracy"]
            met = f"{target:.0%} after {last['round']} rounds" if accuracy >= target else f"{target:.0%} not reached"
            print(
                f"{name}, seed {seed}: {met} (paper: {paper}), {last['seconds']['elapsed']:.0f} s, "
                f"{last['seconds']['elapsed'] / last['round']:.3f} s a round; test accuracy {accuracy:.4f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
