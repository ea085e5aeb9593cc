"""From the command to the first round: `fedmpi train` of the digits on three ranks, and the help text.

    python benchmarks/start.py [--pairs 5] [--against CHECKOUT]

The first round counts as over when its line is in the journal: scored, so after the second round's sum.  With
`--against` another checkout's code does the same in turn.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import machine
from running import HERE, command
from sets import DATA


def shards() -> Path:
    folder = DATA / "digits"
    if not folder.exists():
        words = ["shard", "digits", "--clients", "20", "--partition", "dirichlet", "--alpha", "0.3"]
        command(*words, "--out", str(folder))
    return folder.resolve()


def first(checkout: Path) -> tuple[float, float]:
    """Seconds until the first line of the journal is there, and until `fedmpi --help` has ended."""
    told = {**os.environ, "PYTHONPATH": str(checkout.resolve())}
    with tempfile.TemporaryDirectory(prefix="fedmpi-start-") as folder:
        journal = Path(folder, "run", "journal.jsonl")
        words = ["train", str(HERE / "jobs" / "digits.toml"), "-n", "3", "--out", "run", "--quiet"]
        words += ["--set", f"data.shards={shards()}", "--set", "threads=1"]
        began = time.perf_counter()
        run = subprocess.Popen([sys.executable, "-m", "fedmpi", *words], cwd=folder, env=told)
        while not (journal.exists() and journal.stat().st_size) and run.poll() is None:
            time.sleep(0.005)
        took = time.perf_counter() - began
        if run.wait():
            raise SystemExit(f"{checkout}: fedmpi train ended with {run.returncode}")
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "fedmpi", "--help"], cwd=folder, env=told, check=True, capture_output=True
        )
        return took, time.perf_counter() - began


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--pairs", type=int, default=5)
    arguments.add_argument("--against", type=Path)
    given = arguments.parse_args()
    checkouts = [HERE, *([given.against] if given.against else [])]
    print(machine())
    times: dict[Path, list[tuple[float, float]]] = {checkout: [] for checkout in checkouts}
    for _ in range(given.pairs):
        for checkout in checkouts:
            times[checkout].append(first(checkout))
    for checkout, each in times.items():
        firsts, helps = zip(*each, strict=True)
        print(
            f"{checkout}: {statistics.median(firsts):.2f} s ({min(firsts):.2f} to {max(firsts):.2f}) to the first "
            f"round; --help {statistics.median(helps):.2f} s"
        )


if __name__ == "__main__":
    main()
