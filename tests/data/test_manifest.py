"""What is no shard set, or not one of this version, is refused with the remedy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fedmpi.data import SCHEMA, ShardError, ShardSet, write_shards
from tests.data import shard_sets


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_shards(tmp_path / "set", shard_sets.clients([4, 7]), files=2)
    return tmp_path / "set"


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="there is no such folder"):
        ShardSet.open(tmp_path / "nowhere")


def test_no_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()
    with pytest.raises(ShardError, match=r"holds no manifest\.json"):
        ShardSet.open(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null", "\xff", '{"format": "other"}'])
def test_no_json_of_ours(folder: Path, text: str) -> None:
    (folder / "manifest.json").write_text(text, encoding="latin-1")
    with pytest.raises(ShardError, match="is not the manifest of a shard set"):
        ShardSet.open(folder)


def test_another_schema_version(folder: Path) -> None:
    shard_sets.change(folder, schema_version=SCHEMA + 1)
    with pytest.raises(ShardError, match=rf"schema version {SCHEMA + 1}, this fedmpi reads {SCHEMA}"):
        ShardSet.open(folder)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("clients", 3),
        ("clients", "2"),
        ("examples", 1),
        ("shape", [-3]),
        ("scale", None),
        ("train", []),
        ("unknown", 1),
    ],
)
def test_fields_that_cannot_be(folder: Path, field: str, value: Any) -> None:
    shard_sets.change(folder, **{field: value})
    with pytest.raises(ShardError, match="is damaged"):
        ShardSet.open(folder)


@pytest.mark.parametrize("name", ["../test.h5", "/etc/passwd", "", "..", "a/b.h5"])
def test_a_file_name_is_no_path(folder: Path, name: str) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["test"]["name"] = name
    shard_sets.change(folder, **manifest)
    with pytest.raises(ShardError, match=r"is damaged \(test\.name\)"):
        ShardSet.open(folder)


def test_a_manifest_that_is_cut_short(folder: Path) -> None:
    text = (folder / "manifest.json").read_text()
    for length in range(0, len(text) - 2, 50):
        (folder / "manifest.json").write_text(text[:length])
        with pytest.raises(ShardError, match=r"manifest\.json"):
            ShardSet.open(folder)
