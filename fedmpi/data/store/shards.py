"""A shard set on a rank: opened by its manifest, mapped file by file, verified client by client."""

from __future__ import annotations

import difflib
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedmpi.data.errors import ShardError
from fedmpi.data.store.file import Column, ShardFile, check_size
from fedmpi.data.store.manifest import MANIFEST, Manifest, read_manifest
from fedmpi.flow import Clients, Facts, Where

HISTOGRAMS = 5  # clients whose labels the summary counts
BLOCK = 2**20  # targets read at once
NEAR = 10_000  # ids that a wrong one is compared with


class ShardSet:
    """Many clients' examples, read-only; clients are numbered 0 .. K-1 in the order of the files.

    `shape`, `dtype` (NumPy's, of x) and `target_shape` are of one example as stored; a model sees x times `scale`.
    `features` names the columns of x where they have names.  `examples` counts those trained on, `heldout_examples`
    those held out by clients, `test_examples` those of the central score.  `digest` identifies the data.  Tensors are
    views of a private mapping: writing to them changes this process's copy alone.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder, self.manifest = folder, manifest
        self.name = folder.resolve().name
        self.clients, self.examples, self.largest = manifest.clients, manifest.examples, manifest.largest
        self.shape, self.target_shape = manifest.shape, manifest.target_shape
        self.dtype: np.dtype[Any] = np.dtype(manifest.dtype)
        self.task, self.classes, self.scale = manifest.task, manifest.classes, manifest.scale
        self.features = manifest.features
        self.test_examples = manifest.central[1] - manifest.central[0]
        self.heldout_examples = manifest.heldout
        self.files = {entry.name: entry.bytes for entry in (*manifest.train, manifest.test)}
        self.digest = manifest.digest
        self._starts = np.cumsum([0, *(entry.clients for entry in manifest.train)])  # first client of each file
        self._train: list[ShardFile | None] = [None] * len(manifest.train)
        self._heldout: ShardFile | None = None
        self._central: tuple[Tensor, Tensor] | None = None
        self._labels = manifest.labels
        self._verified: dict[str, NDArray[np.bool_]] = {}  # a byte a client, made when the first one is served

    @classmethod
    def open(cls, folder: Where) -> ShardSet:
        """Read the manifest and check the files' sizes; no column is touched.  ShardError for any fault."""
        path = Path(folder)
        manifest = read_manifest(path)
        for entry in (*manifest.train, manifest.test):
            check_size(path / entry.name, entry)
        return cls(path, manifest)

    @property
    def note(self) -> str | None:
        """A warning for a person about the set; None where there is none."""
        if self.manifest.checksum is not None:
            return None
        warning = "was written by a fedmpi that kept no checksum of it, so a change to it would not be seen"
        return f"{self.folder / MANIFEST}: {warning}; `fedmpi shard` makes it again"

    @property
    def facts(self) -> Facts:
        """What a task and a model are told of the set's examples."""
        return Facts(self.shape, self.target_shape, self.classes, self.features, self.scale)

    def sizes(self, clients: Clients) -> NDArray[np.int64]:
        """Return the number of training examples of each of `clients (n,)`."""
        clients = np.asarray(clients, dtype=np.int64)
        sizes = np.empty(len(clients), dtype=np.int64)
        where = np.searchsorted(self._starts, clients, side="right") - 1
        for place in np.unique(where):
            chosen = where == place
            sizes[chosen] = _lengths(self._file(place).offsets, clients[chosen] - self._starts[place])
        return sizes

    def heldout_sizes(self, clients: Clients) -> NDArray[np.int64]:
        """Return the number of held-out examples of each of `clients (n,)`."""
        return _lengths(self._test_file().offsets, np.asarray(clients, dtype=np.int64))

    def train(self, client: int) -> tuple[Tensor, Tensor]:
        """Return a client's training examples: `(n, *shape)` and `(n, *target_shape)`, views of the mapping if mapped.

        Its checksum is verified the first time; ShardError where the data are damaged.
        """
        place, local = self._locate(client)
        return self._serve(self._file(place), local, client, "train")

    def heldout(self, client: int) -> tuple[Tensor, Tensor]:
        """Return a client's held-out examples, as `train`; there may be none."""
        return self._serve(self._test_file(), self._in_range(client), client, "heldout")

    def test(self) -> tuple[Tensor, Tensor]:
        """Return the examples of the central score: the set's own split, or else all held-out ones."""
        if self._central is None:
            file, (start, stop) = self._test_file(), self.manifest.central
            x, y = file.part(file.x, start, stop), file.part(file.y, start, stop)
            if [_crc(x), _crc(y)] != file.central_checksums:
                raise ShardError(
                    f"{file.path}: the test examples are damaged; copy the file again or make the set again"
                )
            self._central = torch.from_numpy(x), torch.from_numpy(y)
        return self._central

    def labels(self) -> tuple[int, int] | None:
        """Return the lowest and the highest label of all examples, held-out and test ones too; None for other targets.

        The manifest has them; for an older set without, every target is read, once.
        """
        if self._labels is None and np.dtype(self.manifest.target_dtype).kind in "iu":
            files = [*(self._file(place) for place in range(len(self._train))), self._test_file()]
            ranges = [
                (int(block.min()), int(block.max()))
                for file in files
                for block in (file.part(file.y, start, start + BLOCK) for start in range(0, len(file.y), BLOCK))
                if block.size
            ]
            if ranges:
                self._labels = min(low for low, _ in ranges), max(high for _, high in ranges)
        return self._labels

    def id(self, client: int) -> str:
        """Return the id of a client."""
        place, local = self._locate(client)
        return self._file(place).name(local)

    def find(self, id: str) -> int:
        """Return the client with this id; ShardError, naming near ones, where there is none."""
        for place, start in enumerate(self._starts[:-1]):
            places = np.flatnonzero(self._file(place).names() == id.encode())
            if len(places):
                return int(start + places[0])
        some = [self.id(client) for client in range(min(self.clients, NEAR))]
        near = ", ".join(difflib.get_close_matches(id, some)) or f"{some[0]} to {self.id(self.clients - 1)}"
        raise ShardError(f"{self.folder}: has no client {id!r}; there are {self.clients}, such as {near}")

    def pooled(self) -> ShardSet:
        """Return one learner with everybody's data: the same set as a single client."""
        return Pooled(self.folder, self.manifest)

    def summary(self) -> dict[str, Any]:
        """Return the set's facts for a person; `labels` counts those of the first few clients, by class name."""
        sizes = self.sizes(np.arange(self.clients))
        labels: dict[str, dict[str, int]] = {}
        if self.classes and not self.target_shape:
            for client in range(min(self.clients, HISTOGRAMS)):
                counts = np.bincount(self.train(client)[1].numpy(), minlength=len(self.classes))
                labels[self.id(client)] = dict(zip(self.classes, counts.tolist(), strict=True))
        return {
            "folder": str(self.folder),
            "task": self.task,
            "classes": list(self.classes),
            "shape": list(self.shape),
            "dtype": self.dtype.name,
            "clients": self.clients,
            "examples": self.examples,
            "smallest": int(sizes.min()),
            "median": float(np.median(sizes)),
            "largest": self.largest,
            "heldout": self.heldout_examples,
            "test": self.test_examples,
            "files": len(self.files),
            "bytes": sum(self.files.values()),
            "labels": labels,
        }

    def _locate(self, client: int) -> tuple[int, int]:
        """Return the file of a client, and its number in this file."""
        place = int(np.searchsorted(self._starts, self._in_range(client), side="right")) - 1
        return place, int(client - self._starts[place])

    def _in_range(self, client: int) -> int:
        if not 0 <= client < self.manifest.clients:
            raise IndexError(f"client {client} of {self.manifest.clients}")
        return int(client)

    def _file(self, place: int) -> ShardFile:
        file = self._train[place]
        if file is None:
            file = self._train[place] = ShardFile(self.folder, self.manifest.train[place], self.manifest)
        return file

    def _test_file(self) -> ShardFile:
        if self._heldout is None:
            self._heldout = ShardFile(self.folder, self.manifest.test, self.manifest)
        return self._heldout

    def _serve(self, file: ShardFile, local: int, client: int, split: str) -> tuple[Tensor, Tensor]:
        start, stop = int(file.offsets[local]), int(file.offsets[local + 1])
        x, y = file.part(file.x, start, stop), file.part(file.y, start, stop)
        if split not in self._verified:
            self._verified[split] = np.zeros(self.manifest.clients, dtype=np.bool_)
        if not self._verified[split][client]:
            if _crc(y, _crc(x)) != file.checksums[local]:
                fault = f"{file.path}: the examples of client {file.name(local)!r} (number {client}) are damaged"
                raise ShardError(f"{fault}: their checksum is wrong; copy the file again or make the set again")
            self._verified[split][client] = True
        return torch.from_numpy(x), torch.from_numpy(y)


class Pooled(ShardSet):
    """A shard set as one client called "pooled", with everybody's examples in the clients' order."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        super().__init__(folder, manifest)
        self.clients, self.largest = 1, manifest.examples
        self._all: dict[str, tuple[Tensor, Tensor]] = {}

    def sizes(self, clients: Clients) -> NDArray[np.int64]:
        return np.full(len(clients), self.examples, dtype=np.int64)

    def heldout_sizes(self, clients: Clients) -> NDArray[np.int64]:
        return np.full(len(clients), self.heldout_examples, dtype=np.int64)

    def train(self, client: int) -> tuple[Tensor, Tensor]:
        """Return everybody's training examples: a view where they lie in one file, else one copy, made once."""
        if "train" not in self._all:
            for each in range(self.manifest.clients):
                super().train(each)
            files = [self._file(place) for place in range(len(self._train))]
            self._all["train"] = _joined([file.x[:] for file in files]), _joined([file.y[:] for file in files])
        return self._all["train"]

    def heldout(self, client: int) -> tuple[Tensor, Tensor]:
        if "heldout" not in self._all:
            for each in range(self.manifest.clients):
                super().heldout(each)
            file, stop = self._test_file(), self.heldout_examples
            self._all["heldout"] = torch.from_numpy(file.x[:stop]), torch.from_numpy(file.y[:stop])
        return self._all["heldout"]

    def id(self, client: int) -> str:
        return "pooled"

    def find(self, id: str) -> int:
        if id != "pooled":
            raise ShardError(f"{self.folder}: pooled into one learner, it has no client {id!r}, only 'pooled'")
        return 0


def _lengths(offsets: NDArray[np.int64], clients: Clients) -> NDArray[np.int64]:
    lengths: NDArray[np.int64] = offsets[clients + 1] - offsets[clients]
    return lengths


def _crc(column: Column, start: int = 0) -> int:
    return zlib.crc32(np.ascontiguousarray(column).data, start)


def _joined(parts: list[NDArray[Any]]) -> Tensor:
    return torch.from_numpy(parts[0] if len(parts) == 1 else np.concatenate(parts))
