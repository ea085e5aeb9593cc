"""Work of the field's own benchmarks, for a machine without a job of its own: examples drawn at random."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w

from fedmpi.data import write_shards


@dataclass(frozen=True)
class Work:
    """`clients`, each of so many `examples`, `cohort` of them a round."""

    about: str
    clients: int
    examples: int
    cohort: int
    shape: tuple[int, ...]
    classes: int
    model: str
    local: dict[str, Any]
    stored: str = "uint8"

    def make(self, name: str, folder: Path) -> Path:
        """Write the job and its shard set into a folder, where they are not there; return the job's path."""
        shards, job = folder / f"{name}-shards", folder / f"{name}.toml"
        folder.mkdir(parents=True, exist_ok=True)
        if not (shards / "manifest.json").exists():
            random = np.random.default_rng(0)
            clients = {}
            for client in range(self.clients):
                x = (random.random((self.examples, *self.shape)) < 0.1).astype(self.stored)
                clients[f"client-{client}"] = x, random.integers(0, self.classes, self.examples)
            write_shards(shards, clients, holdout=0, classes=tuple(map(str, range(self.classes))), overwrite=True)
        table = {
            "name": name,
            "rounds": 12,
            "seed": 1,
            "data": {"shards": str(shards.resolve())},
            "cohort": {"size": self.cohort},
            "model": {"name": self.model},
            "local": self.local,
        }
        job.write_text(tomli_w.dumps(table), encoding="utf-8")
        return job


WORK = {
    "2nn": Work(
        "the FedAvg paper's 2NN on MNIST's shape",
        100, 600, 10, (784,), 10, "mlp", {"lr": 0.1, "batch": 10, "epochs": 1},
    ),
    "logistic": Work(
        "logistic regression over 1,000 small clients, 100 a round",
        1000, 60, 100, (784,), 10, "logistic", {"lr": 0.03, "batch": 10, "epochs": 1},
    ),
    "wide": Work(
        "10 million parameters, one step of one example",
        8, 1, 8, (10_000,), 1000, "logistic", {"lr": 0.1, "batch": 1, "steps": 1}, "float32",
    ),
}  # fmt: skip
