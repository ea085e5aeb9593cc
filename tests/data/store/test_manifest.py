"""What is no shard set, or not one of this version, is refused with the remedy."""

from __future__ import annotations

import json
import os
import shutil
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


OLD = Path(__file__).parents[2] / "fixtures" / "f9437f9" / "set"
TOLD = {
    "scale": 0.5,
    "task": "regression",
    "classes": ["3", "2", "1", "0"],
    "largest": 11,
    "features": ["b", "a", "c"],
    "labels": [0, 7],
    "created": {},
    "heldout": 1,
    "central": [0, 1],
}


@pytest.mark.parametrize("field", TOLD)
def test_a_field_changed_by_hand_is_refused(folder: Path, field: str) -> None:
    """With what to do; the same table laid out in another way is the same."""
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest[field] != TOLD[field]
    (folder / "manifest.json").write_text(json.dumps(manifest | {field: TOLD[field]}))
    with pytest.raises(ShardError, match=r"its checksum is wrong; put it back as it was, or make the set again"):
        ShardSet.open(folder)
    (folder / "manifest.json").write_text(json.dumps(dict(reversed(manifest.items()))))
    assert ShardSet.open(folder).note is None


def test_every_byte_of_a_manifest_counts(folder: Path) -> None:
    """A flipped bit is found, or changes nothing that is served: a space for another."""
    text = (folder / "manifest.json").read_bytes()
    good = ShardSet.open(folder)
    for place in range(0, len(text), 7):
        (folder / "manifest.json").write_bytes(text[:place] + bytes([text[place] ^ 1 << place % 8]) + text[place + 1 :])
        try:
            opened = ShardSet.open(folder)
        except ShardError:
            continue
        assert opened.manifest == good.manifest


def test_a_manifest_without_a_checksum_opens_with_a_note(tmp_path: Path) -> None:
    shutil.copytree(OLD, tmp_path / "set")
    old = ShardSet.open(tmp_path / "set")
    assert "kept no checksum" in str(old.note)
    targets = [old.train(client)[1] for client in range(old.clients)] + [old.test()[1]]
    assert old.labels() == (min(int(y.min()) for y in targets), max(int(y.max()) for y in targets))
    shard_sets.change(tmp_path / "set")
    assert ShardSet.open(tmp_path / "set").note is None
    assert ShardSet.open(tmp_path / "set").digest == old.digest


@pytest.mark.parametrize("name", ["manifest.json", "test.h5", "train-00000-of-00002.h5"])
@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "loop"])
def test_what_is_no_file_is_refused_and_never_waited_for(folder: Path, name: str, kind: str) -> None:
    path = folder / name
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero" if kind == "device" else path)
    if kind == "pipe" and name != "manifest.json":  # which is as long as its manifest says
        manifest = json.loads((folder / "manifest.json").read_text())
        for entry in [*manifest["train"], manifest["test"]]:
            entry["bytes"] = entry["bytes"] if entry["name"] != name else 0
        shard_sets.write(folder, manifest)
    with pytest.raises(ShardError, match=f"{name}: (is not a file|cannot be read)"):
        ShardSet.open(folder)


def test_a_manifest_too_long_to_be_one_is_not_read(folder: Path) -> None:
    os.truncate(folder / "manifest.json", 2**33)  # sparse: it takes no room
    with pytest.raises(ShardError, match="too long for a manifest"):
        ShardSet.open(folder)


@pytest.mark.parametrize(
    ("field", "value"),
    [("dtype", "float128"), ("target_dtype", "text"), ("central", [9, 2]), ("examples", 2**80), ("scale", 1e999)],
)
def test_numbers_and_types_that_cannot_be(folder: Path, field: str, value: Any) -> None:
    shard_sets.change(folder, **{field: value})
    with pytest.raises(ShardError, match="is damaged"):
        ShardSet.open(folder)
