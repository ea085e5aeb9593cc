"""The shard set of a finished run, where it lies today."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedmpi.data import ShardSet
from fedmpi.flow import Refused
from fedmpi.job import Job
from fedmpi.records.folder import RunFolder
from fedmpi.tell import note


def place_of(job: Job, table: Mapping[str, Any]) -> Path:
    """Return the folder of a run's own shard set: as it was when the run began, else as in the job, from here."""
    was = table.get("run", {}).get("shards")
    return Path(was) if isinstance(was, str) and Path(was).is_dir() else Path(job.data.shards)


def open_own(job: Job, run: RunFolder, table: Mapping[str, Any]) -> ShardSet:
    """Open a run's own shard set, and pass its note on.  Refused where it is gone, or holds other data."""
    try:
        shards = ShardSet.open(place_of(job, table))
    except Refused as refused:
        raise Refused(
            f"{run.path}: the shard set that the run was trained on cannot be used: {refused}; evaluate takes another "
            f"place by --on, and a relative one counts from the folder that the run was started in"
        ) from None
    if table.get("run", {}).get("data", shards.digest) != shards.digest:
        raise Refused(
            f"{run.path}: {shards.folder} holds other data than the run was trained on; "
            f"evaluate --on {shards.folder} scores on it all the same"
        )
    if shards.note:
        note(shards.note)
    return shards
