"""What a shard set says of itself: `manifest.json`, small however many clients there are."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import BaseModel, ConfigDict, Field

from fedmpi.data.errors import ShardError

SCHEMA = 1
MANIFEST = "manifest.json"

Count = Annotated[int, Field(ge=0)]


class Frame(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Entry(Frame):
    """One HDF5 file: its name and size on disk, what it holds, the digest of its ids, offsets and checksums."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]*$")]  # a name, never a path
    bytes: Count
    clients: Count
    examples: Count
    index: str


class Manifest(Frame):
    """`shape` and `dtype` are those of one stored example, `central` the rows of the test file that it is scored on.

    `features` names the columns of x in their order, where they have names.  `labels` are the lowest and the highest
    integer target of all examples, those of a test split too; None for other targets, and in manifests of before.
    """

    format: Literal["fedmpi-shards"] = "fedmpi-shards"
    schema_version: int = SCHEMA
    task: str
    classes: tuple[str, ...]
    scale: float
    shape: tuple[Count, ...]
    dtype: str
    target_shape: tuple[Count, ...]
    target_dtype: str
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

    @property
    def digest(self) -> str:
        """Hex digest of the data that this describes: not of sizes on disk, nor of how it was made."""
        told = self.model_dump(
            mode="json", exclude={"created", "labels"} | ({"features"} if not self.features else set())
        )
        for entry in [*told["train"], told["test"]]:
            del entry["bytes"]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def read(folder: Path) -> Manifest:
    """The manifest of a shard set; ShardError where there is none, or none that this version reads."""
    path = folder / MANIFEST
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        what = (
            "holds no manifest.json: it is not a shard set, or was not written to its end"
            if folder.is_dir()
            else ("there is no such folder")
        )
        raise ShardError(f"{folder}: {what}; `fedmpi shard` makes one") from None
    except OSError as error:
        raise ShardError(f"{path}: cannot be read: {error}") from None
    try:
        version = json.loads(text)["schema_version"]
    except (ValueError, KeyError, TypeError):
        raise ShardError(
            f"{path}: is not the manifest of a shard set; make the set again with `fedmpi shard`"
        ) from None
    if version != SCHEMA:
        remedy = "make it again with `fedmpi shard`, or use the fedmpi that wrote it"
        raise ShardError(f"{path}: has schema version {version}, this fedmpi reads {SCHEMA}; {remedy}")
    try:
        manifest = Manifest.model_validate_json(text)
    except pydantic.ValidationError as error:
        fields = ", ".join(".".join(map(str, detail["loc"])) for detail in error.errors())
        raise ShardError(f"{path}: is damaged ({fields}); make the set again with `fedmpi shard`") from None
    counted = [sum(entry.clients for entry in manifest.train), sum(entry.examples for entry in manifest.train)]
    if counted != [manifest.clients, manifest.examples] or manifest.test.clients != manifest.clients:
        raise ShardError(f"{path}: is damaged (its files do not add up); make the set again with `fedmpi shard`")
    return manifest
