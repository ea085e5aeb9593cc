"""Checkpoints: the whole state of a run, each in one file written at once or not at all."""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fedmpi.flow import Refused
from fedmpi.records.raw import lay, octets
from fedmpi.records.seal import ordinary, unsealed
from fedmpi.tell import note

VERSION = 2
NAME = re.compile(r"round-(\d{6,})\.safetensors")


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write a safetensors file atomically: aside, synced, renamed; `metadata` rides in it as JSON, behind a checksum.

    Both lie under one name.
    """
    write_text(path, tensors, json.dumps(metadata))


def write_text(path: Path, tensors: Mapping[str, Tensor], text: str) -> None:
    """Write the same, of metadata that are JSON already."""
    aside = path.with_name(f".{path.name}.part")
    try:
        lay(aside, tensors, {"fedmpi": f"{checksum(tensors, text)} {text}"})
        sync(aside)
        os.replace(aside, path)
        sync(path.parent)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise Refused(f"{path}: could not be written: {error}") from None


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the metadata of a file by `write_tensors`, or of one without metadata.

    Refused where the file is not whole or its checksum differs; a note where it has none.
    """
    tensors, metadata, sealed = sealed_tensors(path)
    if not sealed:
        unsealed(path)
    return tensors, metadata


def sealed_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any], bool]:
    """Return the same, and whether the file has a checksum; silent where it has none."""
    try:
        ordinary(path)
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping: it has no iterator)
            head = file.metadata() or {}
        text = head.get("fedmpi", "{}")
        seal = "" if text.startswith("{") else text[:9]
        text = text.removeprefix(seal)
        metadata = json.loads(text)
    except FileNotFoundError:
        raise Refused(f"{path}: there is no such file") from None
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise Refused(f"{path}: is not a whole safetensors file: {error}") from None
    if seal and seal != f"{checksum(tensors, text)} ":
        raise Refused(f"{path}: was changed or damaged since it was written (its checksum differs)")
    if head.keys() - {"fedmpi"} or not isinstance(metadata, dict):
        raise Refused(f"{path}: was changed or damaged since it was written (its head says what no run writes)")
    return tensors, metadata, bool(seal)


def checksum(tensors: Mapping[str, Tensor], text: str) -> str:
    """Return the crc32 of a whole file, as 8 hexadecimal digits: metadata `text`, names, dtypes, shapes and values."""
    rows = [(name, str(tensor.dtype), list(tensor.shape)) for name, tensor in sorted(tensors.items())]
    total = zlib.crc32(json.dumps([text, rows]).encode())
    for _, tensor in sorted(tensors.items()):
        total = zlib.crc32(octets(tensor), total)
    return f"{total:08x}"


def sync(path: Path) -> None:
    """Wait until a file, or a folder's names, has reached the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as it was read; a `sealed` one has a checksum, which is right."""

    round: int
    tensors: dict[str, Tensor]
    metadata: dict[str, Any]
    sealed: bool


class Checkpoints:
    """The folder `checkpoints/`: the last `keep` by round, and `best.safetensors`."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep, self.ready = folder, keep, False

    def save(self, round: int, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
        """Write the state of a run after `round` rounds, and drop the oldest checkpoints beyond `keep`."""
        self._ready()
        write_tensors(self.path(round), tensors, {"version": VERSION, **metadata})
        for old in self.rounds()[: -self.keep]:
            self.path(old).unlink(missing_ok=True)

    def save_best(self, round: int, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
        """Write the same under the name `best`: a hard link to the round's file where there is one."""
        self._ready()
        best = self.folder / "best.safetensors"
        if self.path(round).exists():
            aside = self.folder / ".best.part"
            aside.unlink(missing_ok=True)
            try:
                os.link(self.path(round), aside)
                os.replace(aside, best)
                return
            except OSError:
                aside.unlink(missing_ok=True)  # a file system without links: write it
        write_tensors(best, tensors, {"version": VERSION, **metadata})

    def last(self, newest: bool = False) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Return the newest whole checkpoint; None where there is none.  Refused where it is of another version.

        With `newest` it is Refused too where the newest one is damaged: clients' memory goes with no other.
        """
        checkpoint, faults = self.find(newest)
        if checkpoint is None:
            return None
        for fault in faults:
            note(f"{fault}; the one of round {checkpoint.round} serves")
        if not checkpoint.sealed:
            unsealed(self.path(checkpoint.round))
        return checkpoint.tensors, checkpoint.metadata

    def find(self, newest: bool = False) -> tuple[Checkpoint | None, list[str]]:
        """Return the checkpoint of `last`, and the faults of newer ones; silent about both."""
        faults: list[str] = []
        for round in reversed(self.rounds()):
            path = self.path(round)
            try:
                tensors, metadata, sealed = sealed_tensors(path)
                if metadata.get("version") == VERSION and metadata.get("round") != round:
                    raise Refused(f"{path}: holds the checkpoint of round {metadata.get('round')}, not of {round}")
            except Refused as refused:
                if newest:
                    raise
                faults.append(str(refused))
                continue  # a disk that lost a synced file: the one before it serves
            if metadata.get("version") != VERSION:
                raise Refused(
                    f"{path}: is a checkpoint of version {metadata.get('version')}, and this fedmpi reads "
                    f"version {VERSION}; resume with the fedmpi that wrote it"
                )
            return Checkpoint(round, tensors, metadata, sealed), faults
        return None, faults

    def after(self, round: int) -> None:
        """Drop checkpoints of later rounds than `round`."""
        for later in self.rounds():
            if later > round:
                self.path(later).unlink(missing_ok=True)

    def _ready(self) -> None:
        """Make the folder, and remove the remains of writes that a kill cut short."""
        if self.ready:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for torn in [*self.folder.glob(".*.part"), *self.folder.glob(".tmp*")]:
                torn.unlink(missing_ok=True)
        except OSError as error:
            raise Refused(f"{self.folder}: cannot be written: {error.strerror}") from None
        self.ready = True

    def path(self, round: int) -> Path:
        """Return the path of a round's checkpoint."""
        return self.folder / f"round-{round:06d}.safetensors"

    def rounds(self) -> list[int]:
        """Return the rounds with a checkpoint here, in their order."""
        return sorted(int(match[1]) for path in self.folder.glob("round-*") if (match := NAME.fullmatch(path.name)))


def pack(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors under names `prefix.NAME`, contiguous on the host."""
    return {f"{prefix}.{name}": torch.as_tensor(value).detach().cpu().contiguous() for name, value in tensors.items()}


def unpack(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors put under `prefix.` by `pack`."""
    return {name[len(prefix) + 1 :]: value for name, value in tensors.items() if name.startswith(prefix + ".")}
