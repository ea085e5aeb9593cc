"""A process's memory: its own and its share of what it maps, and the most of it while something ran."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from types import TracebackType

ROLLUP = Path("/proc/self/smaps_rollup")
PERIOD = 0.01  # seconds between two looks


def pss() -> float:
    """Return this process's proportional set size in MiB; 0 where the system does not tell."""
    try:
        found = re.search(r"^Pss:\s+(\d+) kB", ROLLUP.read_text(), re.MULTILINE)
    except OSError:
        return 0.0
    return int(found[1]) / 1024 if found else 0.0


class Peak:
    """The most memory that this process held, in MiB of `pss`, while this context was open.

    It is looked at every so often, which takes a core's time: nothing is to be timed meanwhile.
    """

    def __init__(self) -> None:
        self.most = pss()
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Peak:
        self.thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.done.set()
        self.thread.join()

    def _look(self) -> None:
        while not self.done.wait(PERIOD):
            self.most = max(self.most, pss())
