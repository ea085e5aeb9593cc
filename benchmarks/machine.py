"""What every benchmark shares: its machine, and data to run over."""

from __future__ import annotations

import os
import platform
import re
from datetime import date
from pathlib import Path

import torch
from running import command

from fedmpi.cores import cores

DATA = Path("data")  # shard sets are made here once, and kept


def machine() -> str:
    """One line: processor, cores, memory, torch, date."""
    processor = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{processor[1] if processor else platform.machine()}, {cores():g} cores, {memory:.0f} GiB; "
        f"torch {torch.__version__}, Python {platform.python_version()}; {date.today()}"
    )


def mnist(source: str | None) -> Path:
    """MNIST as 100 clients of 600 examples, IID; `source` is the folder of its idx files, needed the first time."""
    folder = DATA / "mnist"
    if not folder.exists():
        if source is None:
            raise SystemExit(f"{folder} is not there: give --source, the folder of MNIST's idx files")
        command("shard", "idx", "--source", source, "--clients", "100", "--partition", "iid", "--out", str(folder))
    return folder
