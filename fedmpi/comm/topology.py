"""A rank's place on its node: its number there, its share of the node's cores, its GPU."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass

import torch

from fedmpi.cores import cores
from fedmpi.job import JobError


@dataclass(frozen=True)
class NodePlace:
    """A rank's place: number `local_rank` of the `local_size` ranks on its node, with `threads` for its arithmetic.

    `crowded` is the same on every rank of a communicator: on some node ranks outnumber cores, so nobody may spin.
    """

    local_rank: int = 0
    local_size: int = 1
    threads: int = 1
    crowded: bool = False

    def device(self, wanted: str) -> torch.device:
        """Return this rank's device: its GPU follows its rank on its node, several ranks may share one; else the CPU.

        Raises JobError where `wanted` is "cuda" and this rank sees no GPU.
        """
        if wanted == "cpu":
            return torch.device("cpu")
        if torch.cuda.is_available():
            return torch.device("cuda", self.local_rank % torch.cuda.device_count())
        if wanted == "cuda":
            raise JobError('device: "cuda" given, but this rank sees no GPU; write device = "auto" or "cpu"')
        return torch.device("cpu")


def mask() -> frozenset[int]:
    """Return the numbers of the cores open to this process."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def together(masks: Collection[frozenset[int]]) -> int:
    """Return the number of a node's cores open to its ranks together; a container's quota is a limit too."""
    return cores(len(frozenset().union(*masks)))


def share(masks: Collection[frozenset[int]], mine: frozenset[int]) -> int:
    """Return a rank's compute threads: the node's cores dealt out evenly, at most the rank's own mask, at least one.

    `masks` are those of all ranks of the node: one core each where the launcher binds them, all the same where it does
    not.
    """
    return max(1, min(together(masks) // len(masks), len(mine)))
