"""A rank's place on its node: its number there, its share of the node's cores, the cores of its own, its GPU."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from fedmpi.cores import cores
from fedmpi.job import JobError

BATCH = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "COBALT_JOBID", "FLUX_JOB_ID")  # of the batch systems


@dataclass(frozen=True)
class NodePlace:
    """A rank's place: number `local_rank` of the `local_size` ranks on its node, with `threads` for its arithmetic.

    `crowded` is the same on every rank of a communicator: on some node ranks outnumber cores, so nobody may spin.
    `bound`: the launcher gave the node's ranks cores of their own.
    """

    local_rank: int = 0
    local_size: int = 1
    threads: int = 1
    crowded: bool = False
    bound: bool = False

    def bind(self, wanted: str, environ: Mapping[str, str] = os.environ) -> list[int]:
        """Bind this process to `threads` cores of its node that no other rank has; return them, none where it is not.

        `wanted` is "on", "off", or "auto": in a batch job alone, since two runs on one machine know nothing of each
        other and would take the same cores.  Ranks that the launcher bound, and those that outnumber cores, stay as
        they are.  Whole cores come before second threads of a core, those of one memory domain before the next.
        """
        alone = any(name in environ for name in BATCH)
        if wanted == "off" or (wanted == "auto" and not alone) or self.bound or self.crowded:
            return []
        if not hasattr(os, "sched_setaffinity"):
            return []
        order = by_domain(mask())
        mine = order[self.local_rank * self.threads : (self.local_rank + 1) * self.threads]
        for task in os.listdir("/proc/self/task"):  # threads that are there already, too
            with suppress(OSError):
                os.sched_setaffinity(int(task), mine)
        return mine

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


def by_domain(cores: Collection[int], system: Path = Path("/sys/devices/system")) -> list[int]:
    """Return cores in the order to bind ranks to them: second threads of a core last, memory domain by domain."""
    domain = {core: number for number, node in enumerate(_folders(system / "node", "node")) for core in _list(node)}
    later = {
        core: _cores(system / "cpu" / f"cpu{core}" / "topology" / "thread_siblings_list").index(core)
        for core in cores
        if core in _cores(system / "cpu" / f"cpu{core}" / "topology" / "thread_siblings_list")
    }
    return sorted(cores, key=lambda core: (later.get(core, 0), domain.get(core, 0), core))


def _folders(path: Path, name: str) -> list[Path]:
    """Return the numbered folders `name0`, `name1`, ... in their order."""
    found = [folder for folder in path.glob(f"{name}[0-9]*") if folder.name.removeprefix(name).isdecimal()]
    return sorted(found, key=lambda folder: int(folder.name.removeprefix(name)))


def _list(node: Path) -> list[int]:
    return _cores(node / "cpulist")


def _cores(path: Path) -> list[int]:
    """Return the cores of a list of the kernel's, such as 0-3,8-11; none where there is no such file."""
    try:
        parts = path.read_text(encoding="ascii").strip().split(",")
    except OSError:
        return []
    ends = [part.partition("-")[::2] for part in parts if part]
    return [core for first, last in ends for core in range(int(first), int(last or first) + 1)]


def mask() -> frozenset[int]:
    """Return the numbers of the cores open to this process."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def together(masks: Collection[frozenset[int]]) -> int:
    """Return the number of a node's cores open to its ranks together; a container's quota is a limit too."""
    return cores(len(frozenset().union(*masks)))


def share(masks: Collection[frozenset[int]], mine: frozenset[int], asked: int | None = None) -> int:
    """Return a rank's compute threads: the node's cores dealt out evenly, at most the rank's own mask, at least one.

    `masks` are those of all ranks of the node: one core each where the launcher binds them, all the same where it does
    not.  They are no more than `asked`.
    """
    most = min(together(masks) // len(masks), len(mine))
    return max(1, most if asked is None else min(most, asked))
