"""From a data source to a shard set: import, deal to clients, keep some aside, write."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fedmpi.data import writer
from fedmpi.data.columns import Array, Columns, finite
from fedmpi.data.dealt import split
from fedmpi.data.errors import ShardError
from fedmpi.data.importers import IMPORTERS
from fedmpi.data.partitions import PARTITIONS
from fedmpi.data.shards import ShardSet
from fedmpi.flow import Where
from fedmpi.job import Component, JobError, choose, find, nearest, options

IMPORTER_GIVEN = ("rng",)  # what `make` fills in: all other arguments are options
PARTITION_GIVEN = ("y", "clients", "rng", "groups")


def make(
    source: str,
    out: Where,
    *,
    clients: int | None = None,
    partition: str = "iid",
    source_options: Mapping[str, Any] | None = None,
    partition_options: Mapping[str, Any] | None = None,
    holdout: float | None = None,
    files: int = 1,
    seed: int = 0,
    overwrite: bool = False,
    progress: Callable[[str], None] | None = None,
) -> ShardSet:
    """Write the shard set `out` of an importer's data, dealt to `clients` by a partition; both are picked by name.

    Options may be text, as a command line has them.  `clients` may be left out where the partition knows (natural).
    `holdout` is the part of each client's examples that it keeps aside: where not given, a fifth, or none where the
    source has a test split of its own.  `progress` is told what happens, a line at a time.  Raises JobError for what
    was asked, ShardError for what was found.
    """
    told = progress or (lambda line: None)
    if clients is None and partition != "natural":
        raise JobError(f"clients: is missing; say how many the {partition} partition deals to")
    if clients is not None and clients < 1:
        raise JobError(f"clients: {clients} given; should be at least 1")
    writer.check(out, files, holdout, overwrite)
    for_source, for_partition, for_holdout = (np.random.default_rng((seed, step)) for step in range(3))

    told(f"importing {source}")
    named = Component.model_validate({**(source_options or {}), "name": source})
    columns: Columns = choose(IMPORTERS, named, "importer", text=True, rng=for_source)
    for name, array in zip(("x", "y", "x of the test split", "y of the test split"), _arrays(columns), strict=False):
        finite(f"{source}: {name}", array)
    if columns.features and (len(columns.features),) != columns.x.shape[1:]:
        raise ShardError(f"{source}: names {len(columns.features)} features; x is {columns.x.shape[1:]} per example")
    for note in (*columns.became, *columns.notes):
        told(note)

    told(f"dealing {len(columns.y)} examples by {partition}")
    named = Component.model_validate({**(partition_options or {}), "name": partition})
    given: dict[str, Any] = {"y": columns.y, "clients": clients, "rng": for_partition, "groups": columns.groups}
    dealt = choose(PARTITIONS, named, "partition", text=True, **given)
    if isinstance(dealt, dict):
        ids, hands = list(dealt), list(dealt.values())
    else:
        width = len(str(len(dealt) - 1))
        ids, hands = [f"client-{client:0{width}}" for client in range(len(dealt))], dealt
    sizes = np.array([len(hand) for hand in hands], dtype=np.int64)
    if sizes.sum() < len(columns.y):
        told(f"{len(columns.y) - sizes.sum()} examples are left over and go to nobody")

    fraction = (0.2 if columns.test is None else 0.0) if holdout is None else holdout
    train, heldout = split(np.concatenate(hands), sizes, fraction, for_holdout)
    created = {
        "source": source,
        "source_options": {name: str(value) for name, value in (source_options or {}).items()},
        "partition": partition,
        "partition_options": {name: str(value) for name, value in (partition_options or {}).items()},
        "clients": len(ids),
        "holdout": fraction,
        "seed": seed,
        "notes": list(columns.notes),
    }
    told(f"writing {len(ids)} clients to {out}")
    return writer.write(
        out,
        ids,
        writer.Source(columns.x, columns.y, train, heldout, columns.test),
        task=columns.task,
        classes=columns.classes,
        scale=columns.scale,
        features=columns.features,
        files=files,
        created=created,
        overwrite=overwrite,
    )


def _arrays(columns: Columns) -> tuple[Array, ...]:
    return (columns.x, columns.y, *(columns.test or ()))


def deal_options(source: str, partition: str, given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of a command line sorted by whose they are: `(source_options, partition_options)`.

    Raises JobError for one that neither has.
    """
    known = [
        (source, options(find(IMPORTERS, source, "importer"), IMPORTER_GIVEN)),
        (partition, options(find(PARTITIONS, partition, "partition"), PARTITION_GIVEN)),
    ]
    for name in given:
        if not any(name in allowed for _, allowed in known):
            told = "; ".join(f"{owner} has {', '.join(allowed) or 'none'}" for owner, allowed in known)
            likely = nearest(name, [option for _, allowed in known for option in allowed])
            raise JobError(f"{name}: is not an option here; {told}{likely}")
    for_source, for_partition = ({name: given[name] for name in given if name in allowed} for _, allowed in known)
    return for_source, for_partition
