"""From a data source to a shard set: import, deal to clients, keep some aside, write."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fedmpi.data import client_rows
from fedmpi.data.columns import Array, Columns, finite
from fedmpi.data.errors import ShardError
from fedmpi.data.importers import IMPORTERS
from fedmpi.data.partitions import PARTITIONS
from fedmpi.data.store import writer
from fedmpi.data.store.shards import ShardSet
from fedmpi.flow import Where
from fedmpi.job import Component, JobError, nearest, options


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
    written: Callable[[int, int], None] | None = None,
) -> ShardSet:
    """Write the shard set `out` of an importer's data, dealt to `clients` by a partition; both are picked by name.

    Options may be text, as a command line has them.  `clients` may be left out where the partition knows (natural).
    `holdout` is the part of each client's examples to hold out: where not given, a fifth, or none where the source has
    a test split of its own.  `progress` is called with each line about the work, `written` with the number of examples
    written so far and of all.  Raises JobError for a fault of the arguments, ShardError for one of the data.
    """
    report = progress or (lambda line: None)
    if clients is None and partition != "natural":
        raise JobError(f"clients: is missing; say how many the {partition} partition deals to")
    if clients is not None and clients < 1:
        raise JobError(f"clients: {clients} given; should be at least 1")
    writer.check(out, files, holdout, overwrite)
    _check_group(source, partition, source_options or {})
    for_source, for_partition, for_holdout = (np.random.default_rng((seed, step)) for step in range(3))

    report(f"importing {source}")
    named = Component.model_validate({**(source_options or {}), "name": source})
    columns = IMPORTERS.choose(named, rng=for_source)
    for x, y in ((columns.x, columns.y), *([columns.test] if columns.test else [])):
        if not isinstance(x, np.ndarray) or not isinstance(y, np.ndarray) or x.shape[:1] != y.shape[:1] or not x.ndim:
            raise JobError(
                f"importer: {source} gave x {_shape(x)} for y {_shape(y)}; should be arrays, a row per example"
            )
    for name, array in zip(("x", "y", "x of the test split", "y of the test split"), _arrays(columns), strict=False):
        finite(f"{source}: {name}", array)
    if columns.features and (len(columns.features),) != columns.x.shape[1:]:
        raise ShardError(f"{source}: names {len(columns.features)} features; x is {columns.x.shape[1:]} per example")
    for note in (*columns.became, *columns.notes):
        report(note)

    report(f"dealing {len(columns.y)} examples by {partition}")
    named = Component.model_validate({**(partition_options or {}), "name": partition})
    deal = PARTITIONS.choose(named, y=columns.y, clients=clients, rng=for_partition, groups=columns.groups)
    ids, hands = client_rows.hands(deal, partition, len(columns.y), clients)
    sizes = np.array([len(hand) for hand in hands], dtype=np.int64)
    if sizes.sum() < len(columns.y):
        report(f"{len(columns.y) - sizes.sum()} examples are left over and go to nobody")
    if not sizes.all():
        report(f"{int((sizes == 0).sum())} clients have no example")

    fraction = (0.2 if columns.test is None else 0.0) if holdout is None else holdout
    train, heldout = client_rows.split(np.concatenate(hands), sizes, fraction, for_holdout)
    created = {
        "source": source,
        "source_options": _written(source_options),
        "partition": partition,
        "partition_options": _written(partition_options),
        "clients": len(ids),
        "holdout": fraction,
        "seed": seed,
        "notes": list(columns.notes),
    }
    report(f"writing {len(ids)} clients to {out}")
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
        written=written,
    )


def _check_group(source: str, partition: str, given: Mapping[str, Any]) -> None:
    """Refuse a client column that the partition ignores: it would be no feature either."""
    group = given.get("group")
    if source in IMPORTERS and group is not None and "groups" not in options(PARTITIONS.find(partition)):
        fault = f"{partition} does not look at clients of the data's own: --partition natural does"
        raise JobError(f"group: {group!r} given, but {fault}; leave --group out")


def _written(given: Mapping[str, Any] | None) -> dict[str, str]:
    """Return options for the manifest; a path may hold bytes that are no text."""
    return {name: str(value).encode(errors="backslashreplace").decode() for name, value in (given or {}).items()}


def _shape(array: object) -> str:
    return f"of shape {array.shape}" if isinstance(array, np.ndarray) else f"as a {type(array).__name__}"


def _arrays(columns: Columns) -> tuple[Array, ...]:
    return (columns.x, columns.y, *(columns.test or ()))


def deal_options(source: str, partition: str, given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Sort options of a command line by their owner: `(source_options, partition_options)`.

    Raises JobError for an option of neither.
    """
    known = [(source, IMPORTERS.options(source)), (partition, PARTITIONS.options(partition))]
    for name in given:
        if not any(name in allowed for _, allowed in known):
            choices = "; ".join(f"{owner} has {', '.join(allowed) or 'none'}" for owner, allowed in known)
            likely = nearest(name, [option for _, allowed in known for option in allowed])
            raise JobError(f"{name}: is not an option here; {choices}{likely}")
    for_source, for_partition = ({name: given[name] for name in given if name in allowed} for _, allowed in known)
    return for_source, for_partition
