"""The machine that a benchmark runs on, in a line."""

from __future__ import annotations

from fedmpi.bench.machine import fingerprint, sentence


def machine() -> str:
    """One line: processor, cores, memory, versions, date."""
    return sentence(fingerprint())
