"""The fingerprint of a machine: what a figure must be read beside."""

from __future__ import annotations

import os
import platform
import re
from datetime import date
from pathlib import Path
from typing import Any

import torch

from fedmpi.cores import cores
from fedmpi.version import VERSION


def fingerprint(library: str | None = None) -> dict[str, Any]:
    """Return the processor, cores and GiB of this host, its GPU, the versions of what computes, and the date.

    `library` is the MPI's own name, where one is loaded.
    """
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    processor = re.search(r"model name\s*:\s*(.*)", text)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    marks: dict[str, Any] = {
        "processor": processor[1] if processor else platform.machine(),
        "cores": cores(),
        "gib": round(memory),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "fedmpi": VERSION,
        "date": str(date.today()),
    }
    if torch.cuda.is_available():
        marks["gpu"] = f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    if library is not None:
        marks["mpi"] = library.split(",")[0]
    return marks


def sentence(marks: dict[str, Any]) -> str:
    """Return a fingerprint in one line."""
    parts = [f"{marks['processor']}, {marks['cores']} core{'s' * (marks['cores'] != 1)}, {marks['gib']} GiB"]
    parts += [str(marks[name]) for name in ("gpu", "mpi") if name in marks]
    parts += [f"torch {marks['torch']}, Python {marks['python']}, fedmpi {marks['fedmpi']}", marks["date"]]
    return "; ".join(parts)
