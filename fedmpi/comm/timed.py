"""A communicator that tells the time of each of its collectives."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

COLLECTIVES = (
    "broadcast",
    "reduce",
    "start_broadcast",
    "start_reduce",
    "largest",
    "total",
    "gather",
    "exchange",
    "agree",
    "group",
    "settle",
)

Heard = Callable[[str, float, float], None]


class Timed:
    """A communicator as another one, whose collectives are told to `heard` with their begin and end.

    Where ranks outnumber cores, so is the wait for the other ranks within each of them.
    """

    def __init__(self, comm: Any, heard: Heard) -> None:
        self._comm, self._heard = comm, heard
        if hasattr(comm, "waited"):
            comm.waited = lambda began, ended: heard("wait", began, ended)

    @property
    def across(self) -> Any:
        return self if self._comm.across is self._comm else self._comm.across

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._comm, name)
        return self._timed(name, value) if name in COLLECTIVES else value

    def _timed(self, name: str, collective: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            began = time.perf_counter()
            try:
                return collective(*arguments, **options)
            finally:
                self._heard(name, began, time.perf_counter())

        return call
