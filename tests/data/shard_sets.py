"""What the tests of shard sets share: small data, and damage done to files."""

from __future__ import annotations

import json
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from fedmpi.data import ShardSet, write_shards

Given = Mapping[str, tuple[NDArray[Any], NDArray[Any]]]


def clients(sizes: list[int], shape: tuple[int, ...] = (3,), dtype: str = "uint8", seed: int = 0) -> Given:
    """Random examples for clients "a0", "b1", ... of so many examples each, labels 0 .. 3."""
    rng = np.random.default_rng(seed)
    return {
        f"{chr(97 + number % 26)}{number}": (
            (rng.random((size, *shape)) * 200).astype(dtype),
            rng.integers(0, 4, size),
        )
        for number, size in enumerate(sizes)
    }


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for one example of a law: pytest's own are one per test."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "set"


@cache
def written(sizes: tuple[int, ...], files: int = 1) -> Mapping[str, bytes]:
    """The files of a set, written once, to be damaged many times."""
    with scratch() as folder:
        write_shards(folder, clients(list(sizes)), files=files, holdout=0.5)
        return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def lay(folder: Path, content: Mapping[str, bytes]) -> None:
    """Put the files of a set in a folder."""
    folder.mkdir()
    for name, data in content.items():
        (folder / name).write_bytes(data)


def everything(shards: ShardSet) -> list[NDArray[Any]]:
    """All that a set serves, in order."""
    pairs = [shards.train(client) for client in range(shards.clients)]
    pairs += [shards.heldout(client) for client in range(shards.clients)]
    return [tensor.numpy().copy() for pair in [*pairs, shards.test()] for tensor in pair]


def rewrite(path: Path, **storage: Any) -> None:
    """Store the columns of a file in another way (chunks, compression), and put its new size in the manifest."""
    with h5py.File(path, "r") as old:
        columns, attributes = {name: old[name][()] for name in old}, dict(old.attrs)
    with h5py.File(path, "w") as new:
        for name, values in columns.items():
            new.create_dataset(name, data=values, **(storage if values.size else {}))
        new.attrs.update(attributes)
    resize(path)


def resize(path: Path) -> None:
    """Tell the manifest the size that a file now has."""
    manifest = json.loads((path.parent / "manifest.json").read_text())
    for entry in [*manifest["train"], manifest["test"]]:
        if entry["name"] == path.name:
            entry["bytes"] = path.stat().st_size
    write(path.parent, manifest)


def change(folder: Path, **fields: Any) -> None:
    """Write other values into the manifest, as somebody would who knows of its checksum."""
    manifest = json.loads((folder / "manifest.json").read_text())
    write(folder, manifest | fields)


def write(folder: Path, manifest: dict[str, Any]) -> None:
    """A manifest under its checksum: the CRC-32 of its table in JSON with sorted keys, the checksum left out."""
    told = {name: value for name, value in manifest.items() if name != "checksum"}
    sealed = told | {"checksum": zlib.crc32(json.dumps(told, sort_keys=True).encode())}
    (folder / "manifest.json").write_text(json.dumps(sealed))
