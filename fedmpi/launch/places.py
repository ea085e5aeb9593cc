"""The nodes of a launch, the ranks and the cores of each, as `mpirun` places ranks without binding."""

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
    """Return the nodes of a launch of `ranks`: this machine, or the nodes of the SLURM allocation around it.

    Each node in turn takes as many ranks as SLURM granted it tasks, and the last one all the rest.
    """
    tasks = _counts(environ.get("SLURM_TASKS_PER_NODE", ""))
    if len(tasks) < 2:
        return [Node(socket.gethostname(), range(ranks), cores())]
    cpus = _counts(environ.get("SLURM_JOB_CPUS_PER_NODE", "")) or [cores()]
    placed, first = [], 0
    for index, count in enumerate(tasks):
        last = ranks if index == len(tasks) - 1 else min(ranks, first + count)
        if last > first:
            name = f"node {index + 1} of {len(tasks)}"
            placed.append(Node(name, range(first, last), cpus[min(index, len(cpus) - 1)]))
        first = last
    return placed


def _counts(text: str) -> list[int]:
    """Return SLURM's counts per node: "4(x2),3" is 4, 4, 3."""
    counts = []
    for count, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", text):
        counts += [int(count)] * int(times or 1)
    return counts
