"""A small shard set: three Gaussian classes, a dozen clients of very different sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

SIZES = (3, 40, 7, 22, 5, 60, 11, 2, 33, 9, 18, 27)


def blobs(sizes: tuple[int, ...] = SIZES, features: int = 6, seed: int = 0) -> dict[str, tuple[Any, Any]]:
    """Clients of `(x, y)`, y the class whose centre x lies near."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(3, features)) * 1.5
    clients = {}
    for place, size in enumerate(sizes):
        y = random.integers(0, 3, size)
        x = (centres[y] + random.normal(size=(size, features))).astype(np.float32)
        clients[f"site-{place}"] = (x, y)
    return clients


def job(shards: Path) -> dict[str, Any]:
    """A short job over them; each call gives a table of its own."""
    return {
        "name": "blobs",
        "seed": 3,
        "threads": 1,
        "rounds": 5,
        "data": {"shards": str(shards)},
        "cohort": {"size": 7},
        "model": {"name": "mlp", "hidden": [8]},
        "local": {"lr": 0.1, "batch": 4, "epochs": 2},
    }
