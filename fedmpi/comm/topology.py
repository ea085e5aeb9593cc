"""Where a rank runs: its node, its share of the node's cores, its GPU."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass

import torch

from fedmpi.cores import cores
from fedmpi.job import JobError


@dataclass(frozen=True)
class Place:
    """A rank's place: `seat` of the `seats` on its node, `threads` for its arithmetic.

    `crowded` is the same on every rank of a communicator: on some node ranks outnumber cores, so nobody may spin.
    """

    seat: int = 0
    seats: int = 1
    threads: int = 1
    crowded: bool = False

    def device(self, wanted: str) -> torch.device:
        """The device of this rank: its GPU follows its rank on its node, several ranks may share one; else the CPU.

        Raises JobError where `wanted` is "cuda" and there is none.
        """
        if wanted == "cpu":
            return torch.device("cpu")
        if torch.cuda.is_available():
            return torch.device("cuda", self.seat % torch.cuda.device_count())
        if wanted == "cuda":
            raise JobError('device: "cuda" given, but this rank sees no GPU; write device = "auto" or "cpu"')
        return torch.device("cpu")


def mask() -> frozenset[int]:
    """The cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def together(masks: Collection[frozenset[int]]) -> int:
    """Cores of a node that its ranks may use between them: a container's quota counts as that many."""
    return cores(len(frozenset().union(*masks)))


def share(masks: Collection[frozenset[int]], mine: frozenset[int]) -> int:
    """Compute threads of a rank: the node's cores dealt out evenly, never more than the rank's own mask, at least one.

    `masks` are those of all ranks of the node: one core each where the launcher binds them, all the same where it does
    not.
    """
    return max(1, min(together(masks) // len(masks), len(mine)))
