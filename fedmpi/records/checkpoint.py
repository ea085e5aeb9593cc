"""Checkpoints: all that a run needs to go on, in one file that is whole or not there."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fedmpi.flow import Refused

VERSION = 2
UMASK = os.umask(0)
os.umask(UMASK)  # it can only be read by setting it
NAME = re.compile(r"round-(\d{6,})\.safetensors")


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write a safetensors file atomically: aside, synced, renamed; `metadata` rides in it as JSON."""
    aside = path.with_name(f".{path.name}.part")
    try:
        save_file(dict(tensors), aside, metadata={"fedmpi": json.dumps(metadata)})
        aside.chmod(
            0o666 & ~UMASK
        )  # safetensors makes it for its owner alone; colleagues read what the umask lets them
        sync(aside)
        os.replace(aside, path)
        sync(path.parent)
    except (OSError, SafetensorError) as error:
        aside.unlink(missing_ok=True)
        raise Refused(f"{path}: could not be written: {error}") from None


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the metadata of a file that `write_tensors` wrote (or any safetensors file: no metadata then)."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping: it has no iterator)
            return tensors, json.loads((file.metadata() or {}).get("fedmpi", "{}"))
    except FileNotFoundError:
        raise Refused(f"{path}: there is no such file") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise Refused(f"{path}: is not a whole safetensors file: {error}") from None


def sync(path: Path) -> None:
    """Let a file, or a folder's names, reach the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Checkpoints:
    """The folder `checkpoints/`: the last `keep` by round, and `best.safetensors`."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep, self.ready = folder, keep, False

    def save(self, round: int, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
        """Keep the state of a run whose model has been through `round` rounds; drop the oldest beyond `keep`."""
        self._ready()
        write_tensors(self.path(round), tensors, {"version": VERSION, **metadata})
        for old in self.rounds()[: -self.keep]:
            self.path(old).unlink(missing_ok=True)

    def save_best(self, round: int, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
        """The same under the name `best`: another name of round's file where that is there."""
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
        """The newest whole checkpoint; None where there is none.  Refused where it is of another version.

        With `newest` it is Refused too where the newest one is damaged: what clients kept goes with no other.
        """
        for round in reversed(self.rounds()):
            try:
                tensors, metadata = read_tensors(self.path(round))
            except Refused:
                if newest:
                    raise
                continue  # a disk that lost a synced file: the one before it serves
            if metadata.get("version") != VERSION:
                raise Refused(
                    f"{self.path(round)}: is a checkpoint of version {metadata.get('version')}, and this fedmpi reads "
                    f"version {VERSION}; resume with the fedmpi that wrote it"
                )
            return tensors, metadata
        return None

    def after(self, round: int) -> None:
        """Drop checkpoints of later rounds than `round`."""
        for later in self.rounds():
            if later > round:
                self.path(later).unlink(missing_ok=True)

    def _ready(self) -> None:
        """The folder, without what a kill left of a write."""
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
        return self.folder / f"round-{round:06d}.safetensors"

    def rounds(self) -> list[int]:
        return sorted(int(found[1]) for path in self.folder.glob("round-*") if (found := NAME.fullmatch(path.name)))


def pack(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under `prefix.`, contiguous on the host."""
    return {f"{prefix}.{name}": torch.as_tensor(value).detach().cpu().contiguous() for name, value in tensors.items()}


def unpack(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What `pack` put under `prefix.`."""
    return {name[len(prefix) + 1 :]: value for name, value in tensors.items() if name.startswith(prefix + ".")}
