"""A table of examples, and a model that a run trained on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fedmpi
from fedmpi.data import make
from fedmpi.use.load import Trained, load
from tests.table import COLOURS, lay


@pytest.fixture(scope="session")
def table() -> list[tuple[float, str, float, str]]:
    """Age, colour, height, and whether sick: which needs every column."""
    random = np.random.default_rng(0)
    rows = []
    for _ in range(60):
        age, colour, height = random.normal(), COLOURS[random.integers(3)], 5 * random.normal()
        rows.append((age, colour, height, "yes" if age + 2 * (colour == "red") + height > 0 else "no"))
    return rows


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, table: list[Any]) -> Trained:
    folder = tmp_path_factory.mktemp("load")
    lay(folder / "set.csv", [("age", "colour", "height", "sick"), *table])
    make("csv", folder / "set", clients=3, source_options={"source": folder / "set.csv", "target": "sick"})
    job = {"name": "t", "rounds": 2, "data": {"shards": str(folder / "set")}, "model": {"name": "logistic"}}
    fedmpi.train(job, out=folder / "run")
    return load(folder / "run")


@pytest.fixture
def moved(tmp_path: Path, table: list[Any], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that was started in `a`, on the shard set `set` there; the working folder is `b` now."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    lay(tmp_path / "set.csv", [("age", "colour", "height", "sick"), *table])
    made = {"source": tmp_path / "set.csv", "target": "sick"}
    make("csv", tmp_path / "a" / "set", clients=3, holdout=0.2, source_options=made)
    make("csv", tmp_path / "b" / "set", clients=3, holdout=0.2, source_options=made, seed=5)  # of the same name
    monkeypatch.chdir(tmp_path / "a")
    job = {"name": "t", "rounds": 1, "data": {"shards": "set"}, "model": {"name": "logistic"}}
    fedmpi.train(job, out=tmp_path / "run")
    monkeypatch.chdir(tmp_path / "b")
    return tmp_path
