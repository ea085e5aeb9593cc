"""A checkpoint is whole or not there, whenever the writing was cut short."""

from __future__ import annotations

import errno
import mmap
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from fedmpi.flow import Refused
from fedmpi.records import checkpoint, raw
from fedmpi.records.checkpoint import Checkpoints, pack, read_tensors, unpack, write_tensors


class Killed(BaseException):
    """The process ends here."""


def tensors(round: int) -> dict[str, torch.Tensor]:
    return {"planes": torch.full((1, 5), float(round), dtype=torch.float64), "server.step": torch.tensor(round)}


def kept(store: Checkpoints, round: int, **metadata: Any) -> None:
    store.save(round, tensors(round), {"round": round, **metadata})


def newest(store: Checkpoints) -> int:
    found = store.last()
    assert found is not None
    held, metadata = found
    assert all(torch.equal(value, tensors(metadata["round"])[name]) for name, value in held.items())
    assert set(held) == {"planes", "server.step"}
    return int(metadata["round"])


@settings(derandomize=True, database=None, deadline=None, max_examples=30)
@given(
    numbers=st.lists(st.sampled_from(["float32", "float64", "int64", "uint8"]), max_size=4),
    shape=st.lists(st.integers(0, 4), max_size=3),
    metadata=st.dictionaries(st.text(), st.one_of(st.none(), st.integers(), st.text(), st.lists(st.booleans()))),
)
def test_what_was_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, numbers: list[str], shape: list[int], metadata: dict[str, Any]
) -> None:
    path = tmp_path_factory.mktemp("t") / "x.safetensors"
    random = torch.Generator().manual_seed(1)
    given = {
        f"t{place}": (torch.rand(shape, generator=random) * 100).to(getattr(torch, kind))
        for place, kind in enumerate(numbers)
    }
    write_tensors(path, given, metadata)
    held, told = read_tensors(path)
    assert told == metadata
    assert held.keys() == given.keys()
    for name, value in given.items():
        assert held[name].dtype == value.dtype
        assert torch.equal(held[name], value)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_the_last_are_kept_and_the_best_survives(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path / "checkpoints", keep=2)
    assert store.last() is None
    for round in range(1, 7):
        kept(store, round)
        if round == 3:
            store.save_best(3, tensors(3), {"round": 3})
    assert store.rounds() == [5, 6]
    assert newest(store) == 6
    best, metadata = read_tensors(store.folder / "best.safetensors")
    assert metadata["round"] == 3
    assert torch.equal(best["planes"], tensors(3)["planes"])
    assert sorted(path.name for path in store.folder.iterdir()) == [
        "best.safetensors",
        "round-000005.safetensors",
        "round-000006.safetensors",
    ]


@pytest.mark.parametrize("linked", [True, False])
def test_the_best_is_written_where_it_cannot_be_linked(
    tmp_path: Path, linked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*given: Any, **named: Any) -> None:
        raise OSError("no links here")

    store = Checkpoints(tmp_path, keep=1)
    kept(store, 4)
    if not linked:
        monkeypatch.setattr(os, "link", refuse)
    for round in (4, 9):  # 9 has no file of its own
        store.save_best(round, tensors(round), {"round": round})
        best, metadata = read_tensors(tmp_path / "best.safetensors")
        assert (metadata["round"], metadata["version"]) == (round, checkpoint.VERSION)
        assert torch.equal(best["planes"], tensors(round)["planes"])
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_writing_a_round_again_leaves_the_best_as_it_was(tmp_path: Path) -> None:
    """A resume makes round 2's file anew: the best is another name of the old one, not of the path."""
    store = Checkpoints(tmp_path, keep=3)
    kept(store, 2)
    store.save_best(2, tensors(2), {"round": 2})
    store.save(2, tensors(8), {"round": 2})
    best, _ = read_tensors(tmp_path / "best.safetensors")
    assert torch.equal(best["planes"], tensors(2)["planes"])


@pytest.mark.parametrize("best", [False, True], ids=["round", "best"])
@pytest.mark.parametrize("step", ["lay", "sync", "replace"])
def test_a_kill_while_writing_leaves_the_old_file_whole(
    tmp_path: Path, best: bool, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Checkpoints(tmp_path, keep=5)
    kept(store, 1)
    store.save_best(1, tensors(1), {"round": 1})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def die(*given: Any, **named: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(os if step == "replace" else checkpoint, step, die)
        with pytest.raises(Killed):
            store.save_best(7, tensors(7), {"round": 7}) if best else kept(store, 2)
    whole = {path.name: path.read_bytes() for path in tmp_path.iterdir() if not path.name.startswith(".")}
    assert whole == before
    assert newest(store) == 1
    kept(store, 2)  # over what the kill left aside
    assert newest(store) == 2


def test_a_torn_part_is_ignored_and_written_over(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path, keep=5)
    kept(store, 1)
    for name in (
        ".round-000002.safetensors.part",
        ".best.part",
        "round-2.safetensors",
        "round-000009.safetensors.part",
    ):
        (tmp_path / name).write_bytes(b"torn")
    assert store.rounds() == [1]
    assert newest(store) == 1
    kept(store, 2)
    store.save_best(2, tensors(2), {"round": 2})
    assert newest(store) == 2


def test_a_newest_file_torn_at_any_byte_is_skipped(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path, keep=5)
    kept(store, 1)
    kept(store, 2)
    whole = store.path(2).read_bytes()
    for length in range(len(whole)):
        store.path(2).write_bytes(whole[:length])
        assert newest(store) == 1
        with pytest.raises(Refused, match="round-000002"):
            read_tensors(store.path(2))
    store.path(2).write_bytes(whole)
    assert newest(store) == 2


def test_where_every_file_is_torn_there_is_none(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path, keep=5)
    kept(store, 1)
    store.path(1).write_bytes(b"")
    assert store.last() is None


def test_another_version_is_refused_not_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Checkpoints(tmp_path, keep=5)
    kept(store, 1)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "VERSION", checkpoint.VERSION + 1)
        kept(store, 2)
    with pytest.raises(Refused, match=rf"round-000002.*version {checkpoint.VERSION + 1}.*version {checkpoint.VERSION}"):
        store.last()


def test_a_run_of_a_million_rounds_finds_its_last_checkpoint(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path, keep=2)
    for round in (999_999, 1_000_000, 1_000_001):
        kept(store, round)
    assert newest(store) == 1_000_001
    assert store.rounds() == [1_000_000, 1_000_001]


def test_after_drops_what_will_be_told_again(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path, keep=9)
    for round in (2, 4, 6):
        kept(store, round)
    store.save_best(6, tensors(6), {"round": 6})
    store.after(4)
    assert store.rounds() == [2, 4]
    assert (tmp_path / "best.safetensors").exists()


@pytest.mark.parametrize("fault", ["gone", "full"])
def test_a_disk_that_does_not_take_it_is_one_refusal(
    tmp_path: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Checkpoints(tmp_path / "checkpoints", keep=2)
    kept(store, 1)
    if fault == "gone":
        shutil.rmtree(store.folder)
    else:

        def refuse(*given: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(checkpoint, "sync", refuse)
    with pytest.raises(Refused, match=r"round-000002\.safetensors: could not be written"):
        kept(store, 2)
    if fault == "full":
        assert [path.name for path in store.folder.iterdir()] == ["round-000001.safetensors"]


@pytest.mark.parametrize("content", [b"", b"no tensors", b"\xff" * 64, None])
def test_what_is_no_safetensors_file_is_refused_by_name(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "x.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(Refused, match=r"x\.safetensors: (is not a whole safetensors file|there is no such file)"):
        read_tensors(path)


def test_a_plain_safetensors_file_has_no_metadata(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "a.safetensors")
    held, metadata = read_tensors(tmp_path / "a.safetensors")
    assert metadata == {}
    assert held["a"].tolist() == [1.0, 1.0]


def test_the_file_is_the_library_s_own_byte_for_byte(tmp_path: Path) -> None:
    given = {kind.__str__(): torch.ones(2, 3).to(kind) for kind in raw.KINDS}
    given |= {
        "scalar": torch.tensor(2.5),
        "none": torch.zeros(0, 4),
        "ü": torch.ones(1),
        "apart": torch.eye(3).T[:, 1:],
    }
    metadata = {"fedmpi": 'a "b" ü\n'}
    raw.lay(tmp_path / "mine", given, metadata)
    save_file({name: tensor.contiguous() for name, tensor in given.items()}, tmp_path / "its", metadata=metadata)
    assert (tmp_path / "mine").read_bytes() == (tmp_path / "its").read_bytes()
    with pytest.raises(Refused, match="cannot hold the tensor 'wide': its numbers are torch.complex128"):
        raw.lay(tmp_path / "mine", {"wide": torch.ones(1, dtype=torch.complex128)}, metadata)


SMALL = 3 * raw.BLOCK  # bytes of the room for a large file, in tests


@pytest.mark.parametrize("direct", [raw.DIRECT, 0], ids=["past the cache", "through it"])
@pytest.mark.parametrize("size", [1, raw.BLOCK - 1, SMALL // 4 - 40, SMALL // 4, SMALL // 4 + 1, 10_007])
def test_a_large_file_is_the_library_s_own_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, direct: int
) -> None:
    monkeypatch.setattr(raw, "LARGE", 0)
    monkeypatch.setattr(raw, "ROOM", SMALL)
    monkeypatch.setattr(raw, "DIRECT", direct)
    paged = torch.from_numpy(np.frombuffer(mmap.mmap(-1, 4 * size), np.float32))  # goes to the disk as it lies
    paged.copy_(torch.arange(size))
    given = {"a": torch.arange(size, dtype=torch.float32), "b": torch.arange(7, dtype=torch.int8), "c": paged}
    for some in (given, {"c": paged, "b": given["b"]}, given):  # one over the other
        raw.lay(tmp_path / "mine", some, {"of": "mine"})
        save_file(some, tmp_path / "its", metadata={"of": "mine"})
        mine, its = ((tmp_path / name).read_bytes() for name in ("mine", "its"))
        length, its_length = (int.from_bytes(file[:8], "little") for file in (mine, its))
        assert mine[8 : 8 + length].rstrip(b" ") == its[8 : 8 + its_length].rstrip(b" ")
        assert mine[8 + length :] == its[8 + its_length :]
        assert (8 + length) % raw.BLOCK == 0
        with safe_open(tmp_path / "mine", framework="pt") as file:
            assert file.metadata() == {"of": "mine"}
            assert all(torch.equal(file.get_tensor(name), tensor) for name, tensor in some.items())


@pytest.mark.parametrize("at", ["open", "pwrite"])
@pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSPC])
def test_a_file_system_that_knows_only_its_cache_is_written_through_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str, number: int
) -> None:
    monkeypatch.setattr(raw, "LARGE", 0)
    given = {"a": torch.arange(5000.0)}
    kept = {"open": os.open, "pwrite": os.pwrite}

    def refuses(*parts: Any, **named: Any) -> Any:
        if at == "pwrite" or parts[1] & raw.DIRECT:
            raise OSError(number, os.strerror(number))
        return kept[at](*parts, **named)

    monkeypatch.setattr(raw.os, at, refuses)
    if number == errno.ENOSPC and raw.DIRECT:
        with pytest.raises(OSError, match="No space left"):
            raw.lay(tmp_path / "mine", given, {})
        return
    raw.lay(tmp_path / "mine", given, {})
    monkeypatch.undo()
    assert torch.equal(load_file(tmp_path / "mine")["a"], given["a"])


def test_a_write_that_takes_less_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw, "LARGE", 0)
    given, write = {"a": torch.arange(9000.0)}, os.pwrite
    monkeypatch.setattr(raw.os, "pwrite", lambda file, block, at: write(file, block[: raw.BLOCK], at))
    raw.lay(tmp_path / "mine", given, {})
    assert torch.equal(load_file(tmp_path / "mine")["a"], given["a"])


def test_pack_and_unpack_know_their_own() -> None:
    packed = pack("server", {"step": torch.tensor(3.0), "server": torch.eye(3).T[:, 1:]}) | {
        "serverless": torch.ones(1)
    }
    assert set(packed) == {"server.step", "server.server", "serverless"}
    assert all(value.is_contiguous() for value in packed.values())
    back = unpack("server", packed)
    assert set(back) == {"step", "server"}
    assert torch.equal(back["server"], torch.eye(3)[:, 1:])


def test_slices_of_one_vector_may_be_kept_together(tmp_path: Path) -> None:
    vector = torch.arange(10.0)
    write_tensors(tmp_path / "x.safetensors", pack("a", {"one": vector[:4], "two": vector[4:]}), {})
    held, _ = read_tensors(tmp_path / "x.safetensors")
    assert torch.equal(torch.cat([held["a.one"], held["a.two"]]), vector)
