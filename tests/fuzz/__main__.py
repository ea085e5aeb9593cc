"""Broken inputs by the thousand, each following from its seed, its kind and its number alone.

    python -m tests.fuzz [--jobs N] [--shards N] [--tables N] [--arrays N] [--flips N] [--seed S] [--start NUMBER]

N cases of each kind (of flips, in each kind of file that is read back).  A finding is a line; with one the exit status
is 1.  `--start NUMBER` with a count of 1 tries that case again, and shows its traceback.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.kinds import KINDS, ready


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for kind in KINDS:
        arguments.add_argument(f"--{kind}", type=int, default=0, metavar="N")
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--start", type=int, default=0, metavar="NUMBER")
    given = arguments.parse_args()
    faulthandler.enable()
    found = 0
    with tempfile.TemporaryDirectory(prefix="fedmpi-fuzz-") as folder:
        os.chdir(folder)
        sys.path[:] = [os.path.abspath(path) for path in sys.path]
        for kind in KINDS:
            if count := getattr(given, kind):
                began = time.perf_counter()
                for tally in ready(kind, Path(folder), count, given.seed, given.start):
                    found += len(tally.findings)
                    print(*tally.findings, sep="\n", end="\n" * bool(tally.findings))
                    told = ", ".join(f"{number} {outcome}" for outcome, number in sorted(tally.outcomes.items()))
                    print(f"{tally.kind}: {told}; {time.perf_counter() - began:.0f} s", flush=True)
    raise SystemExit(1 if found else 0)


if __name__ == "__main__":
    main()
