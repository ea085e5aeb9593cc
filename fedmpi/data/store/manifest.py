"""The manifest of a shard set, `manifest.json`: small however many clients there are, under its own checksum."""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import BaseModel, ConfigDict, Field

from fedmpi.data.errors import ShardError

SCHEMA = 1
MANIFEST = "manifest.json"
LARGEST = 2**28  # bytes of a manifest; a million features take a tenth of it
AGAIN = "make the set again with `fedmpi shard`"

Count = Annotated[int, Field(ge=0, lt=2**62)]
Stored = Annotated[str, Field(pattern=r"^(u?int8|int(16|32|64)|float(16|32|64))$")]


class Record(BaseModel):
    """A table of a manifest: other fields than its own and other types are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Entry(Record):
    """One HDF5 file: its name and size on disk, its numbers of clients and examples, its index's digest."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]*$")]  # a name, never a path
    bytes: Count
    clients: Count
    examples: Count
    index: str


class Manifest(Record):
    """The description of a shard set; `shape` and `dtype` are those of one stored example.

    `central` are the rows of the test file for the central score.  `features` names the columns of x in their order,
    where they have names.  `labels` are the lowest and the highest integer target of all examples, those of a test
    split too; None for other targets, and in older manifests.  `checksum` is `seal` of all else; None in older
    manifests.
    """

    format: Literal["fedmpi-shards"] = "fedmpi-shards"
    schema_version: int = SCHEMA
    task: str
    classes: tuple[str, ...]
    scale: float
    shape: tuple[Count, ...]
    dtype: Stored
    target_shape: tuple[Count, ...]
    target_dtype: Stored
    clients: Annotated[int, Field(ge=1)]
    examples: Count
    largest: Count
    heldout: Count
    central: tuple[Count, Count]
    train: tuple[Entry, ...]
    test: Entry
    features: tuple[str, ...] = ()
    labels: tuple[int, int] | None = None
    created: dict[str, Any] = {}
    checksum: int | None = None

    @property
    def digest(self) -> str:
        """Hex digest of the data described: not of sizes on disk, nor of how they were made."""
        table = self.model_dump(
            mode="json", exclude={"created", "labels", "checksum"} | ({"features"} if not self.features else set())
        )
        for entry in [*table["train"], table["test"]]:
            del entry["bytes"]
        return hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()

    @property
    def adds_up(self) -> bool:
        """Whether the manifest's numbers can be true of one set."""
        clients, examples = (sum(getattr(entry, field) for entry in self.train) for field in ("clients", "examples"))
        start, stop = self.central
        return (
            (clients, examples, self.test.clients) == (self.clients, self.examples, self.clients)
            and self.largest <= self.examples
            and self.heldout <= self.test.examples
            and 0 <= start <= stop <= self.test.examples
            and math.isfinite(self.scale)
            and (not self.features or self.shape == (len(self.features),))
        )


def seal(table: dict[str, Any]) -> int:
    """Return the CRC-32 of a manifest's table without its checksum: of the values, not of the file's layout."""
    content = {name: value for name, value in table.items() if name != "checksum"}
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())


def text(manifest: Manifest) -> str:
    """Return a manifest as JSON, under its checksum."""
    table = manifest.model_dump(mode="json")
    return json.dumps(table | {"checksum": seal(table)}, indent=1)


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of a shard set; ShardError for a missing, foreign, newer, older or changed one."""
    path = folder / MANIFEST
    table = _table(folder, path)
    version = table.get("schema_version")
    if version is None:
        raise ShardError(f"{path}: is not the manifest of a shard set; {AGAIN}")
    if version != SCHEMA:
        remedy = "make it again with `fedmpi shard`, or use the fedmpi that wrote it"
        raise ShardError(f"{path}: has schema version {str(version)[:20]}, this fedmpi reads {SCHEMA}; {remedy}")
    try:
        manifest = Manifest.model_validate_json(json.dumps(table))
    except pydantic.ValidationError as error:
        fields = ", ".join(".".join(map(str, detail["loc"])) for detail in error.errors()[:8])
        raise ShardError(f"{path}: is damaged ({fields[:200]}); {AGAIN}") from None
    if manifest.checksum is not None and manifest.checksum != seal(table):
        fault = "was changed after the set was written, or is damaged: its checksum is wrong"
        raise ShardError(f"{path}: {fault}; put it back as it was, or {AGAIN}")
    if not manifest.adds_up:
        raise ShardError(f"{path}: is damaged (its files do not add up); {AGAIN}")
    return manifest


def _table(folder: Path, path: Path) -> dict[str, Any]:
    """Return the file's table, unchecked; a pipe or a device is never opened."""
    try:
        if path.exists() and not path.is_file():
            raise ShardError(f"{path}: is not a file; {AGAIN}")
        if path.exists() and path.stat().st_size > LARGEST:
            raise ShardError(f"{path}: is {path.stat().st_size} bytes long, too long for a manifest; {AGAIN}")
        table = json.loads(path.read_bytes())
    except FileNotFoundError:
        fault = "holds no manifest.json: it is not a shard set, or was not written to its end"
        fault = fault if folder.is_dir() else "there is no such folder"
        raise ShardError(f"{folder}: {fault}; `fedmpi shard` makes one") from None
    except OSError as error:
        raise ShardError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError):
        raise ShardError(f"{path}: is not the manifest of a shard set; {AGAIN}") from None
    if not isinstance(table, dict):
        raise ShardError(f"{path}: is not the manifest of a shard set; {AGAIN}")
    return table
