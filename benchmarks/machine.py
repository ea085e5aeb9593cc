"""What every benchmark shares: its machine, ranks to run on, data to run over, memory as the kernel counts it."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from datetime import date
from pathlib import Path

import torch

from fedmpi import launch
from fedmpi.cores import cores
from fedmpi.launch import local

DATA = Path("data")  # shard sets are made here once, and kept


def machine() -> str:
    """One line: processor, cores, memory, torch, date."""
    processor = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{processor[1] if processor else platform.machine()}, {cores():g} cores, {memory:.0f} GiB; "
        f"torch {torch.__version__}, Python {platform.python_version()}; {date.today()}"
    )


def on_ranks(ranks: int) -> None:
    """Run this script on so many ranks of its own machine, and leave; returns where that has been done already."""
    if launch.world() is not None:
        torch.set_num_threads(1)
        return
    print(machine(), flush=True)
    raise SystemExit(subprocess.run(start(ranks, sys.argv), env=environment(ranks)).returncode)


def start(ranks: int, words: list[str]) -> list[str]:
    """The command that runs a script with its arguments on so many ranks."""
    return [*local.start(launch.find_mpirun(), ranks), sys.executable, "-m", "mpi4py", *words]


def environment(ranks: int) -> dict[str, str]:
    """What those ranks are told: one compute thread each."""
    return {**launch.environment(ranks), "OMP_NUM_THREADS": "1"}


def mnist(source: str | None) -> Path:
    """MNIST as 100 clients of 600 examples, IID; `source` is the folder of its idx files, needed the first time."""
    folder = DATA / "mnist"
    if not folder.exists():
        if source is None:
            raise SystemExit(f"{folder} is not there: give --source, the folder of MNIST's idx files")
        shard = ["shard", "idx", "--source", source, "--clients", "100", "--partition", "iid", "--out", str(folder)]
        subprocess.run([sys.executable, "-m", "fedmpi", *shard], check=True)
    return folder


def memory() -> dict[str, float]:
    """This process's memory in MiB: `anonymous` (its own), `pss` (with its share of what it maps)."""
    text = Path("/proc/self/smaps_rollup").read_text()
    found = {name.lower(): int(kb) / 1024 for name, kb in re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE)}
    return {"anonymous": found["anonymous"], "pss": found["pss"]}
