"""The machine that a benchmark runs on, in a line."""

from __future__ import annotations

import os
import platform
import re
from datetime import date
from pathlib import Path

import torch

from fedmpi.cores import cores


def machine() -> str:
    """One line: processor, cores, memory, torch, date."""
    processor = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{processor[1] if processor else platform.machine()}, {cores():g} cores, {memory:.0f} GiB; "
        f"torch {torch.__version__}, Python {platform.python_version()}; {date.today()}"
    )
