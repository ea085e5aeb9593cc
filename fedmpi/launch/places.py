"""Which ranks would run on which node, and how many cores each of them has: what `mpirun` does without binding."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from fedmpi.cores import cores


@dataclass(frozen=True)
class Node:
    """A node, the ranks on it, and its cores."""

    name: str
    ranks: range
    cores: int

    @property
    def share(self) -> int:
        """Compute threads of each rank: the node's cores dealt out evenly, at least one."""
        return max(1, self.cores // len(self.ranks))


def nodes(ranks: int, environ: Mapping[str, str] = os.environ) -> list[Node]:
    """The nodes of a launch of `ranks`: this machine, or those of the SLURM allocation that we are in.

    The allocation's nodes are filled one after another by the tasks each was given; what is left over goes to the last.
    """
    takes = _takes(environ.get("SLURM_TASKS_PER_NODE", ""))
    if len(takes) < 2:
        return [Node(socket.gethostname(), range(ranks), cores())]
    holds = _takes(environ.get("SLURM_JOB_CPUS_PER_NODE", "")) or [cores()]
    placed, first = [], 0
    for index, take in enumerate(takes):
        last = ranks if index == len(takes) - 1 else min(ranks, first + take)
        if last > first:
            name = f"node {index + 1} of {len(takes)}"
            placed.append(Node(name, range(first, last), holds[min(index, len(holds) - 1)]))
        first = last
    return placed


def _takes(counts: str) -> list[int]:
    """SLURM's counts per node: "4(x2),3" is 4, 4, 3."""
    found = []
    for count, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", counts):
        found += [int(count)] * int(times or 1)
    return found
