"""Work of home beside the round: in a thread of its own, where home itself would wait for other ranks."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Result = TypeVar("Result")


class Beside:
    """One thread, which works on one thing after another; where this rank does not wait, the work is done at once.

    A thread has no settings of its own: torch's would be every core.
    """

    def __init__(self, waits: bool) -> None:
        self.waits = waits
        self.threads: ThreadPoolExecutor | None = None

    def start(self, work: Callable[[], Result]) -> Callable[[], Result]:
        """Begin some work; return what waits for its end and gives its result, or raises its error."""
        if not self.waits:
            result = work()
            return lambda: result
        if self.threads is None:
            cores = torch.get_num_threads()
            self.threads = ThreadPoolExecutor(1, "beside", initializer=lambda: torch.set_num_threads(cores))
        return self.threads.submit(work).result
