"""Files that are not what their manifest says are refused by name."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from fedmpi.data import ShardError, ShardSet, write_shards
from tests.data import shard_sets


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_shards(tmp_path / "set", shard_sets.clients([4, 7]), files=2)
    return tmp_path / "set"


@pytest.mark.parametrize("name", ["train-00001-of-00002.h5", "test.h5"])
def test_a_missing_file(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ShardError, match=f"{name}: is missing"):
        ShardSet.open(folder)


@pytest.mark.parametrize("name", ["train-00001-of-00002.h5", "test.h5"])
def test_no_hdf5(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"x" * (folder / name).stat().st_size)
    shards = ShardSet.open(folder)
    with pytest.raises(ShardError, match=f"{name}: cannot be read as a shard"):
        shards.train(1), shards.heldout(1)


@pytest.mark.parametrize(("field", "value"), [("shape", [4]), ("dtype", "float32"), ("target_shape", [2])])
def test_columns_of_another_shape_or_type(folder: Path, field: str, value: object) -> None:
    shard_sets.change(folder, **{field: value})
    shards = ShardSet.open(folder)
    for read in (shards.train, shards.heldout):
        with pytest.raises(ShardError, match=r"\.h5: [xy] is .*, the manifest says"):
            read(0)


def test_another_schema_version_in_a_file(folder: Path) -> None:
    path = folder / "train-00000-of-00002.h5"
    with h5py.File(path, "r+") as file:
        file.attrs["schema_version"] = 7
    shard_sets.resize(path)
    with pytest.raises(ShardError, match="schema version 7"):
        ShardSet.open(folder).train(0)


@pytest.mark.parametrize("column", ["x", "y", "client_ids", "offsets", "checksums"])
def test_a_missing_column(folder: Path, column: str) -> None:
    path = folder / "train-00000-of-00002.h5"
    with h5py.File(path, "r+") as file:
        del file[column]
    shard_sets.resize(path)
    with pytest.raises(ShardError, match=path.name):
        ShardSet.open(folder).train(0)


@pytest.mark.parametrize("column", ["client_ids", "offsets", "checksums"])
def test_an_index_of_other_values(folder: Path, column: str) -> None:
    path = folder / "train-00000-of-00002.h5"
    with h5py.File(path, "r+") as file:
        values = file[column][()]
        file[column][...] = (
            values[::-1]
            if len(values) > 1
            else np.array([b"q"], values.dtype)
            if column == "client_ids"
            else values + 1
        )
    shard_sets.resize(path)
    with pytest.raises(ShardError, match="not those of the manifest"):
        ShardSet.open(folder).train(0)


def test_a_file_of_another_set(tmp_path: Path, folder: Path) -> None:
    write_shards(tmp_path / "other", shard_sets.clients([4, 7], seed=1), files=2)
    name = "train-00001-of-00002.h5"
    (folder / name).write_bytes((tmp_path / "other" / name).read_bytes())
    shards = ShardSet.open(folder)  # of the same size: only its index tells
    shards.train(0)
    with pytest.raises(ShardError, match=f"{name}: its ids, offsets or checksums"):
        shards.train(1)
