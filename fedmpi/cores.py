"""The number of cores open to this process: its affinity mask, and the quota of its container or batch job (cgroup)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path


def cores(
    allowed: int | None = None, proc: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> int:
    """Return the number of whole cores open to this process, at least one.

    `allowed` is the size of the affinity mask, the process's own where not given.  A quota of 2.5 cores counts as 2: a
    third thread would be put to sleep for half of each period, and the others would wait for it.
    """
    if allowed is None:
        allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min([allowed, *_quotas(proc, root)])))


OURS = "FEDMPI_OMP"  # set by our own launcher where it set OMP_NUM_THREADS, and nobody else had


def threads(environ: Mapping[str, str] = os.environ) -> int | None:
    """Return the number of compute threads that a person or a batch system asks for by OMP_NUM_THREADS; None for none.

    Of a list, for nested loops, the first counts.
    """
    first = environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(first) if first.isdecimal() and int(first) and not environ.get(OURS) else None


def _quotas(proc: Path, root: Path) -> Iterator[float]:
    """Yield the quota, in cores, of every cgroup of this process and of those above them: the smallest holds."""
    for line in _read(proc).splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            mounts = [root]
        elif "cpu" in controllers.split(","):
            mounts = [root / controllers, root / "cpu"]
        else:
            continue
        inside = [part for part in path.split("/") if part not in ("", "..")]  # ".." leads out of a cgroup namespace
        for mount in mounts:
            # A container may see the host's path but only its own part of the tree: then the mount is its group.
            for depth in range(len(inside) + 1):
                yield from _quota(mount.joinpath(*inside[:depth]))


def _quota(group: Path) -> Iterator[float]:
    new = _read(group / "cpu.max").split()
    old = [_read(group / "cpu.cfs_quota_us").strip(), _read(group / "cpu.cfs_period_us").strip()]
    for quota, period in (new, old) if len(new) == 2 else (old,):
        if quota.isdecimal() and period.isdecimal() and int(period) > 0:  # "max" and -1 mean no limit
            yield int(quota) / int(period)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return ""
