"""Writing is atomic: a set is there whole, or as it was before."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from fedmpi.data import SCHEMA, ShardError, ShardSet, write_shards
from fedmpi.data.store import writer
from fedmpi.job import JobError
from tests.data import shard_sets


def test_the_layout_of_a_file(tmp_path: Path) -> None:
    """As the README tells others: columns, offsets, CRC-32 of a client's x bytes then y bytes, attributes."""
    given = shard_sets.clients([4, 0, 7, 5])
    write_shards(tmp_path, given, holdout=0, files=2, classes=["north", "east", "south", "west"])
    found = {}
    for path in sorted(tmp_path.glob("train-*.h5")):
        with h5py.File(path, "r") as file:
            assert set(file) == {"x", "y", "client_ids", "offsets", "checksums"}
            assert file.attrs["schema_version"] == SCHEMA
            assert file.attrs["task"].decode() == "classification"
            assert [name.decode() for name in file.attrs["classes"]] == ["north", "east", "south", "west"]
            assert json.loads(file.attrs["created"])["source"] == "arrays"
            offsets = file["offsets"][()]
            for client, name in enumerate(file["client_ids"]):
                x, y = (file[column][offsets[client] : offsets[client + 1]] for column in "xy")
                assert file["checksums"][client] == zlib.crc32(x.tobytes() + y.tobytes())
                found[name.decode()] = x
            for column in "xy":
                assert file[column].chunks is None
                assert file[column].id.get_offset() % 64 == 0
    assert list(found) == list(given)
    for name, (x, _) in given.items():
        np.testing.assert_array_equal(found[name], x)


def test_the_layout_of_the_test_file(tmp_path: Path) -> None:
    split = np.zeros((6, 3), np.uint8), np.zeros(6, int)
    write_shards(tmp_path, shard_sets.clients([10, 1, 5]), files=3, test=split, holdout=0.2)
    with h5py.File(tmp_path / "test.h5", "r") as file:
        assert file["offsets"][()].tolist() == [0, 2, 2, 3]
        assert [name.decode() for name in file["client_ids"]] == ["a0", "b1", "c2"]
        assert list(file.attrs["central"]) == [3, 9]
        assert len(file["x"]) == len(file["y"]) == 9


def test_blocks_are_joined_without_a_seam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of one row, blocks across clients, one block: the same data with the same checksums."""
    digests = set()
    for number, block in enumerate((1, 50, 2**25)):
        monkeypatch.setattr("fedmpi.data.store.file_writer.BLOCK", block)
        shards = write_shards(tmp_path / str(number), shard_sets.clients([4, 0, 7, 0, 5, 0]), files=2)
        shard_sets.everything(shards)
        digests.add(shards.digest)
    assert len(digests) == 1


@pytest.mark.parametrize("error", [OSError("no space left"), RuntimeError("cannot flush"), KeyboardInterrupt()])
@pytest.mark.parametrize("before", [False, True])
def test_a_failed_write_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, before: bool
) -> None:
    if before:
        write_shards(tmp_path / "set", shard_sets.clients([4, 5]))
    old = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    original = writer.write_file

    def failing(path: Path, *rest: Any) -> Any:
        if path.name == "test.h5":
            raise error
        return original(path, *rest)

    monkeypatch.setattr(writer, "write_file", failing)
    with pytest.raises(KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else ShardError):
        write_shards(tmp_path / "set", shard_sets.clients([6]), overwrite=True)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == old


def test_a_failed_rename_puts_the_old_set_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_shards(tmp_path / "set", shard_sets.clients([4, 5]))
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if Path(target).name == "set" and not self.name.endswith(".old"):
            raise OSError("no")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(ShardError, match="cannot be written"):
        write_shards(tmp_path / "set", shard_sets.clients([6]), overwrite=True)
    assert ShardSet.open(tmp_path / "set").clients == 2
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_a_set_is_replaced_only_when_asked(tmp_path: Path) -> None:
    write_shards(tmp_path / "set", shard_sets.clients([4, 5]), files=2)
    with pytest.raises(JobError, match="is there already; give --overwrite"):
        write_shards(tmp_path / "set", shard_sets.clients([6]))
    assert write_shards(tmp_path / "set", shard_sets.clients([6]), overwrite=True).clients == 1
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == [
        "manifest.json",
        "test.h5",
        "train-00000-of-00001.h5",
    ]


def test_a_folder_of_other_things_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(JobError, match="holds other things"):
        write_shards(tmp_path, shard_sets.clients([6]), overwrite=True)
    with pytest.raises(JobError, match="holds other things"):
        write_shards(tmp_path / "thesis.tex", shard_sets.clients([6]), overwrite=True)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_link_to_a_set_stays_a_link(tmp_path: Path) -> None:
    write_shards(tmp_path / "set", shard_sets.clients([4, 5]))
    (tmp_path / "link").symlink_to("set")
    write_shards(tmp_path / "link", shard_sets.clients([6]), overwrite=True)
    assert (tmp_path / "link").is_symlink()
    assert ShardSet.open(tmp_path / "set").clients == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"files": 0}, "files: 0 given"),
        ({"files": 3}, "files: 3 given; there are only 2 clients"),
        ({"holdout": 1.0}, "holdout: 1.0 given"),
        ({"holdout": -0.1}, "holdout: -0.1 given"),
    ],
)
def test_what_cannot_be_asked(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(JobError, match=message):
        write_shards(tmp_path / "set", shard_sets.clients([4, 5]), **options)
    assert not list(tmp_path.iterdir())


FULL = "Can't write data (file write failed: time = Mon Jan  1\n, filename = 'x', errno = 28, error message = 'No space"


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, FULL + " left on device', buf = 0x7f, total write size = 9)"),
        RuntimeError(FULL + " left on device', buf = 0x7f, total write size = 9)"),
        OSError(28, "whatever, buf = 0x7f"),
        RuntimeError("No space left on device, buf = 0x7f\nmore"),
    ],
)
def test_a_full_disk_is_told_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def failing(*_: Any) -> Any:
        raise error

    monkeypatch.setattr(writer, "write_file", failing)
    with pytest.raises(ShardError) as told:
        write_shards(tmp_path / "set", shard_sets.clients([6]))
    assert str(told.value) == f"{tmp_path / 'set'}: cannot be written: No space left on device"
