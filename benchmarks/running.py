"""How every benchmark runs fedmpi: by its command, on ranks of its own, or as one checkout beside another.

Run by `mpirun` with a job's file, an output folder and the time that the launcher began, this file is what each rank of
`measure` does: it uses nothing but `fedmpi.train`, so that it drives any checkout.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[1]


def command(*words: str, python: str | Path = sys.executable, folder: Path | None = None) -> str:
    """Run a command of fedmpi's, as anyone would, and return what it printed; a failure ends the benchmark with it.

    In another folder than the checkout PYTHONPATH alone says whose code runs.
    """
    return _run([str(python), "-m", "fedmpi", *words], dict(os.environ), folder)


def lines(out: Path) -> list[dict[str, Any]]:
    """The journal of a run's folder."""
    return [json.loads(line) for line in (out / "journal.jsonl").read_text().splitlines()]


def on_ranks(ranks: int) -> None:
    """Run this script on so many ranks of its own machine, and leave; returns where that has been done already."""
    import torch
    from machine import machine

    from fedmpi import launch

    if launch.world() is not None:
        torch.set_num_threads(1)
        return
    print(machine(), flush=True)
    raise SystemExit(subprocess.run(start(ranks, sys.argv), env=environment(ranks)).returncode)


@dataclass(frozen=True)
class Measure:
    """One launch: seconds from mpirun's start to the first round's end, and a round; MiB of each rank.

    `anonymous` is what a rank holds at the end, `peak` the most that was resident at once (VmHWM); `bytes` are those of
    a round, `imports` the part of `first` that went by before the job began.
    """

    imports: float
    first: float
    round: float
    anonymous: list[float]
    peak: list[float]
    bytes: dict[str, int]


def measure(job: Mapping[str, Any], ranks: int, checkout: Path = HERE, keep: bool = True) -> Measure:
    """Train a job on so many new ranks with a checkout's code; with `keep` it writes a run's folder, as by default."""
    import tomli_w

    with tempfile.TemporaryDirectory(prefix="fedmpi-measure-") as folder:
        Path(folder, "job.toml").write_text(tomli_w.dumps(job))
        words = [str(Path(__file__).resolve()), "job.toml", "run" if keep else "", str(time.time())]
        told = {**environment(ranks), "PYTHONPATH": str(checkout.resolve())}
        # Away from any checkout: what lies in the working directory would be imported first.
        values = json.loads(_run(start(ranks, words), told, Path(folder)).splitlines()[-1])
    if not Path(values.pop("code")).is_relative_to(checkout.resolve()):
        raise SystemExit(f"{checkout} is no checkout of fedmpi: its code did not run")
    return Measure(**values)


def compare(jobs: Mapping[str, Mapping[str, Any]], other: Path, *, ranks: int, pairs: int, keep: bool = True) -> None:
    """Print how this checkout fares beside another: each job by both in turn, in new processes, `pairs` times.

    Ratios are of medians, and in brackets the range of those of the pairs; memory is the median of each rank's peak.
    """
    print(f"{HERE} / {other.resolve()}, {ranks} ranks, {pairs} pairs: ratios of medians (of pairs)")
    for name, job in jobs.items():
        mine: list[Measure] = []
        theirs: list[Measure] = []
        for pair in range(pairs):
            turns = [(mine, HERE), (theirs, other)]
            for measures, checkout in turns if pair % 2 else reversed(turns):
                measures.append(measure(job, ranks, checkout, keep))
        cells = [_ratio([one.round for one in mine], [one.round for one in theirs], "s a round")]
        cells += [_ratio([one.first for one in mine], [one.first for one in theirs], "s to the first")]
        for rank in range(ranks):
            peaks = [statistics.median(one.peak[rank] for one in each) for each in (mine, theirs)]
            cells.append(f"rank {rank} {peaks[0]:.0f} / {peaks[1]:.0f} MiB = {peaks[0] / peaks[1]:.3f}")
        print(f"{name:18} {'; '.join(cells)}", flush=True)


def _ratio(mine: list[float], theirs: list[float], what: str) -> str:
    ratios = [one / other for one, other in zip(mine, theirs, strict=True)]
    medians = statistics.median(mine), statistics.median(theirs)
    ratio = f"{medians[0] / medians[1]:.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
    return f"{medians[0]:.4f} / {medians[1]:.4f} {what} = {ratio}"


def start(ranks: int, words: list[str]) -> list[str]:
    """The command that runs a script with its arguments on so many ranks."""
    from fedmpi import launch
    from fedmpi.launch import local

    return [*local.start(launch.find_mpirun(), ranks), sys.executable, "-m", "mpi4py", *words]


def environment(ranks: int) -> dict[str, str]:
    """What those ranks are told: one compute thread each."""
    from fedmpi import launch

    return {**launch.environment(ranks), "OMP_NUM_THREADS": "1"}


def _run(words: list[str], environment: dict[str, str], folder: Path | None) -> str:
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: ended with {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def memory() -> dict[str, float]:
    """This process's memory in MiB: `anonymous` (its own), `pss` (with its share of what it maps), `peak` (VmHWM)."""
    text = Path("/proc/self/smaps_rollup").read_text() + Path("/proc/self/status").read_text()
    kinds = dict(re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE))
    return {name: int(kinds[kind]) / 1024 for name, kind in MEMORY.items()}


MEMORY = {"anonymous": "Anonymous", "pss": "Pss", "peak": "VmHWM"}


def _rank(job: str, out: str, began: float) -> None:
    """Train on every rank, and print at home what `Measure` holds, and whose code it was, as JSON."""
    import torch
    from mpi4py import MPI

    import fedmpi

    torch.set_num_threads(1)
    train, world = fedmpi.train, MPI.COMM_WORLD  # `train` imports all that a run needs
    imports = time.time() - began
    ends: list[float] = []
    journal: list[dict[str, Any]] = []

    def on_round(line: dict[str, Any]) -> None:
        ends.append(time.time())
        journal.append(line)

    train(job, world, out=out or None, on_round=on_round)
    everyone = world.gather(memory())
    if everyone is not None:
        # The last line waits for the final score: the others are a round apart.
        apart = [later - one for one, later in pairwise(ends[:-1])]
        values = {"imports": imports, "first": ends[0] - began, "round": statistics.median(apart)}
        values |= {kind: [rank[kind] for rank in everyone] for kind in ("anonymous", "peak")}
        print(json.dumps({**values, "bytes": journal[0]["bytes"], "code": fedmpi.__file__}))


if __name__ == "__main__":
    _rank(sys.argv[1], sys.argv[2], float(sys.argv[3]))
