"""Shard sets with something broken in them: bytes, files, the manifest, columns of the HDF5 files."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

import fedmpi
from fedmpi.data import ShardSet
from fedmpi.data.store.manifest import seal
from tests.fuzz.judge import Case, Wrong

FILES = 2
VALUES: list[Any] = [
    0, 1, -1, 2, 7, 10**6, 2**63, 10**30, 1.5, 1e308, -0.0, True, None, "", "x", "float32", "float64", "int8", "binary",
    "../test.h5", "test.h5", [], {}, [0], [1, 2], [[]], ["a", "b"], {"a": 1}, "\0", "x" * 3000,
]  # fmt: skip


def shard_set(folder: Path) -> Path:
    """Five clients in two files, some kept aside, a test split of its own, feature-like x of three values."""
    random_ = np.random.default_rng(2)

    def pair(count: int) -> tuple[Any, Any]:
        return random_.normal(size=(count, 3)).astype(np.float32), random_.integers(0, 4, count)

    clients = {f"hospital-{place}": (*pair(6 + place), *pair(2)) for place in range(5)}
    fedmpi.write_shards(folder, clients, test=pair(5), classes=("a", "b", "c", "d"), scale=0.5, files=FILES)
    return folder


def content(folder: Path) -> dict[str, Any]:
    """All that training and scoring would read."""
    shards = ShardSet.open(folder)
    said = {name: getattr(shards, name) for name in ("task", "classes", "scale", "shape", "target_shape", "features")}
    said |= {
        "labels": shards.labels(),
        "clients": shards.clients,
        "examples": shards.examples,
        "largest": shards.largest,
    }
    everyone = np.arange(shards.clients)
    arrays: dict[str, Any] = {"sizes": shards.sizes(everyone), "aside": shards.heldout_sizes(everyone)}
    for client in everyone.tolist():
        said[f"id {client}"] = shards.id(client)
        for split in ("train", "heldout"):
            arrays |= {f"{split} {client} {n}": part.numpy() for n, part in enumerate(getattr(shards, split)(client))}
    arrays |= {f"test {n}": part.numpy() for n, part in enumerate(shards.test())}
    shards.summary()
    return said | {name: (array.dtype.str, array.shape, array.tobytes()) for name, array in arrays.items()}


def make(rng: random.Random, folder: Path, whole: Path, truth: dict[str, Any]) -> Case:
    """A copy of the whole set with one thing broken."""
    place = folder / "set"
    shutil.copytree(whole, place)
    told = rng.choice(WAYS)(rng, place)

    def run() -> None:
        found = content(place)
        wrong = [name for name in truth if found.get(name) != truth[name]]
        if wrong or found.keys() != truth.keys():
            raise Wrong(f"{', '.join(wrong[:4])} are other than they were")

    return Case(told, run)


def _some(rng: random.Random, place: Path) -> Path:
    return rng.choice(sorted(place.iterdir()))


def _flipped(rng: random.Random, place: Path) -> str:
    path = _some(rng, place)
    return flip(rng, path, rng.choice([1, 1, 2, 8]))


def flip(rng: random.Random, path: Path, bits: int = 1) -> str:
    """Turn bits of a file over."""
    data = bytearray(path.read_bytes())
    places = [rng.randrange(8 * len(data)) for _ in range(bits)]
    for bit in places:
        data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)
    return f"{path.name}: bits {', '.join(map(str, places))} flipped"


def _cut(rng: random.Random, place: Path) -> str:
    path = _some(rng, place)
    size = rng.choice([0, 1, rng.randrange(path.stat().st_size), path.stat().st_size - 1])
    os.truncate(path, size)
    return f"{path.name}: cut to {size} bytes"


def _longer(rng: random.Random, place: Path) -> str:
    path = _some(rng, place)
    with path.open("ab") as file:
        file.write(rng.choice([b"\0", b"\n", rng.randbytes(100), bytes(5000)]))
    return f"{path.name}: longer"


def _block(rng: random.Random, place: Path) -> str:
    path = _some(rng, place)
    data = bytearray(path.read_bytes())
    at, size = rng.randrange(len(data)), rng.choice([4, 64, 512])
    data[at : at + size] = rng.choice([bytes, rng.randbytes])(len(data[at : at + size]))
    path.write_bytes(data)
    return f"{path.name}: {size} bytes at {at} are others"


def _swapped(rng: random.Random, place: Path) -> str:
    one, other = rng.sample(sorted(place.iterdir()), 2)
    data = one.read_bytes()
    if rng.random() < 0.5:
        one.write_bytes(other.read_bytes())
        other.write_bytes(data)
        return f"{one.name} and {other.name} swapped"
    other.write_bytes(data)
    return f"{other.name} is a copy of {one.name}"


def _instead(rng: random.Random, place: Path) -> str:
    """No file, or something else under its name."""
    path = _some(rng, place)
    path.unlink()
    ways: dict[str, Callable[[], Any]] = {
        "missing": lambda: None,
        "a folder": path.mkdir,
        "a FIFO": lambda: os.mkfifo(path),
        "a link to itself": lambda: path.symlink_to(path),
        "a link to nothing": lambda: path.symlink_to(place / "gone"),
        "/dev/zero": lambda: path.symlink_to("/dev/zero"),
        "/dev/null": lambda: path.symlink_to("/dev/null"),
        "/dev/urandom": lambda: path.symlink_to("/dev/urandom"),
        "empty": path.touch,
        "text": lambda: path.write_text("hello\n"),
        "JSON that is no table": lambda: path.write_text(
            rng.choice(["[]", "3", "null", '"x"', "{}", "NaN", "[" * 100_000])
        ),
    }
    way = rng.choice(list(ways))
    ways[way]()
    return f"{path.name}: {way}"


def _edited(rng: random.Random, place: Path) -> str:
    """Another value, name or order in the manifest, whatever it says of itself."""
    path = place / "manifest.json"
    table = json.loads(path.read_text())
    inside, where = table, "manifest"
    if rng.random() < 0.3:
        inside, where = rng.choice(
            [(table["test"], "test"), (table["train"][0], "train 0"), (table["train"][1], "train 1")]
        )
    name = rng.choice([key for key in inside if key != "created"])
    way = rng.choice(["value", "value", "value", "near", "gone", "more", "turned"])
    value = inside[name]
    if way == "value":
        inside[name] = rng.choice(VALUES)
    elif way == "near" and isinstance(value, (int, float)):
        inside[name] = value + rng.choice([1, -1, 0.5])
    elif way == "near" and isinstance(value, str):
        inside[name] = value[:-1] + "0"
    elif way == "gone":
        del inside[name]
    elif way == "more":
        inside[rng.choice(["more", "Scale", "features", "labels"])] = rng.choice(VALUES)
    elif isinstance(value, list):
        inside[name] = value[::-1]
    path.write_text(json.dumps(table))
    return f"{where}.{name}: {way}, {inside.get(name)!r:.60}"


def _rewritten(rng: random.Random, place: Path) -> str:
    """A column of an HDF5 file is another, and the manifest says how long the file is now."""
    path = rng.choice(sorted(place.glob("*.h5")))
    with h5py.File(path, "r+") as file:
        name = rng.choice(list(file))
        data = file[name][:]
        told = rng.choice(list(COLUMNS))
        COLUMNS[told](file, name, data, rng)
    return f"{path.name}: {name} {told}{_fitted(place, path)}"


def _remade(file: h5py.File, name: str, data: Any, **how: Any) -> None:
    del file[name]
    file.create_dataset(name, data=data, **how)


def _linked(file: h5py.File, name: str, link: Any) -> None:
    del file[name]
    file[name] = link


def _one_value(file: h5py.File, name: str, data: Any, rng: random.Random) -> None:
    if data.size and data.dtype.kind in "iuf":
        data.reshape(-1)[rng.randrange(data.size)] += 1
        _remade(file, name, data)


COLUMNS: dict[str, Callable[[h5py.File, str, Any, random.Random], Any]] = {
    "is as it was, compressed": lambda file, name, data, rng: _remade(
        file, name, data, chunks=True, compression="gzip"
    ),
    "is as it was, in chunks": lambda file, name, data, rng: _remade(file, name, data, chunks=True),
    "is shorter": lambda file, name, data, rng: _remade(file, name, data[:-1]),
    "is longer": lambda file, name, data, rng: _remade(file, name, np.concatenate([data, data[-1:]])),
    "is turned round": lambda file, name, data, rng: _remade(file, name, data[::-1]),
    "has one value changed": _one_value,
    "is text": lambda file, name, data, rng: _remade(file, name, data.astype("S20")),
    "is float64": lambda file, name, data, rng: _remade(
        file, name, data.astype("S20") if data.dtype.kind == "S" else data * 1.0
    ),
    "is of the other byte order": lambda file, name, data, rng: _remade(
        file, name, data.astype(data.dtype.newbyteorder(">"))
    ),
    "is flat": lambda file, name, data, rng: _remade(file, name, data.reshape(-1, 1, 1)),
    "is a number": lambda file, name, data, rng: _remade(file, name, 3),
    "is empty": lambda file, name, data, rng: _remade(file, name, data[:0]),
    "is null": lambda file, name, data, rng: _remade(file, name, h5py.Empty("f4")),
    "is gone": lambda file, name, data, rng: file.__delitem__(name),
    "is a group": lambda file, name, data, rng: _linked(file, name, h5py.SoftLink("/")),
    "links to itself": lambda file, name, data, rng: _linked(file, name, h5py.SoftLink(f"/{name}")),
    "lies in another file": lambda file, name, data, rng: _linked(file, name, h5py.ExternalLink("gone.h5", "x")),
    "is of schema 7": lambda file, name, data, rng: file.attrs.__setitem__("schema_version", 7),
    "is of a schema in words": lambda file, name, data, rng: file.attrs.__setitem__("schema_version", "one"),
    "has no attributes": lambda file, name, data, rng: [file.attrs.__delitem__(key) for key in list(file.attrs)],
    "has other checksums of the test split": lambda file, name, data, rng: file.attrs.__setitem__(
        "central_checksums", [1, 2]
    ),
}


def _fitted(place: Path, path: Path) -> str:
    """Let the manifest tell the file's new length, sealed again: so what is inside must be looked at."""
    manifest = place / "manifest.json"
    table = json.loads(manifest.read_text())
    for entry in [*table["train"], table["test"]]:
        if entry["name"] == path.name:
            entry["bytes"] = path.stat().st_size
    manifest.write_text(json.dumps(table | {"checksum": seal(table)}))
    return ", told of"


WAYS: list[Callable[[random.Random, Path], str]] = [
    _flipped, _flipped, _cut, _longer, _block, _swapped, _instead, _instead, _edited, _edited, _edited,
    _rewritten, _rewritten,
]  # fmt: skip
