"""The kinds of broken input, by name: what each begins with, and what judges it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import fedmpi
from tests.fuzz import arrays, flips, jobs, shards, tables
from tests.fuzz.judge import Maker, Tally, cases


def _jobs(folder: Path) -> dict[str, Maker]:
    shards_ = jobs.shard_set(folder / "set")
    fedmpi.train({**jobs.BASES[1], "data": {"shards": str(shards_)}})  # imports what a first case would wait for
    return {"jobs": partial(jobs.make, shards=shards_)}


def _tables(folder: Path) -> dict[str, Maker]:
    return {"tables": tables.make}


def _shards(folder: Path) -> dict[str, Maker]:
    whole = shards.shard_set(folder / "whole")
    return {"shards": partial(shards.make, whole=whole, truth=shards.content(whole))}


def _arrays(folder: Path) -> dict[str, Maker]:
    return {"arrays": arrays.make}


def _flips(folder: Path) -> dict[str, Maker]:
    return flips.Runs(folder, jobs.shard_set(folder / "set")).makers()


KINDS: dict[str, Callable[[Path], dict[str, Maker]]] = {
    "jobs": _jobs,
    "shards": _shards,
    "tables": _tables,
    "arrays": _arrays,
    "flips": _flips,
}


def ready(kind: str, folder: Path, count: int, seed: int, start: int = 0) -> Iterator[Tally]:
    """`count` cases of each maker of a kind, in a folder of their own."""
    place = folder / kind
    place.mkdir()
    for name, make in KINDS[kind](place).items():
        yield cases(name, make, count, seed, place, start)
