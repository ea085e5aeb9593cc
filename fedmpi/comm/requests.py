"""Collectives under way: a wait for their ends that may sleep."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from mpi4py import MPI

MOST, LEAST = 1e-3, 2e-5  # seconds of a sleep between two looks


def sleep_until(done: Callable[[], bool]) -> None:
    """Look again and again until something is `done`, asleep in between.

    A sleep is a tenth of the wait so far: a short wait is noticed at once, a long one costs no core.
    """
    began = time.perf_counter()
    while not done():
        time.sleep(min(MOST, max(LEAST, (time.perf_counter() - began) / 10)))


class Requests:
    """A started collective: the requests of its pieces, waited for asleep where ranks outnumber cores (`crowded`)."""

    def __init__(self, requests: Sequence[MPI.Request], crowded: bool) -> None:
        self.requests, self.crowded = list(requests), crowded

    def wait(self) -> None:
        """Return when all pieces are through."""
        if self.crowded:
            sleep_until(lambda: MPI.Request.Testall(self.requests))
        else:
            MPI.Request.Waitall(self.requests)
        self.requests = []
