"""Whatever bit of a run folder is flipped, what is read back is what was written, or it is refused or told."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from fedmpi.flow import Refused
from fedmpi.records.checkpoint import Checkpoints, read_tensors, write_tensors
from fedmpi.records.folder import RunFolder
from fedmpi.records.journal import Journal, read_journal
from fedmpi.records.memory import HEAD, LAUNCHES, SLOTS, SLOTS_FILE, Memory

WIDTH = 5
JOB = {"name": "digits", "rounds": 3, "local": {"lr": 0.1}, "run": {"shards": "/data", "lower": ["loss"], "ranks": 3}}
TENSORS = {
    "planes": torch.arange(6.0).reshape(1, 6),
    "count": torch.tensor(3),
    "flags": torch.tensor([True, False, True]),
    "half": torch.ones(3, dtype=torch.bfloat16),
    "none": torch.zeros(0, 4),
}


def flips(path: Path, every: int = 1) -> Iterator[int]:
    """The file with each bit flipped in turn (`every` so many), put back afterwards."""
    whole = path.read_bytes()
    for bit in range(random.Random(0).randrange(every), 8 * len(whole), every):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        yield bit
    path.write_bytes(whole)


def kept(folder: Path) -> Path:
    """A run folder with a file of each kind, as the run wrote them."""
    run = RunFolder(folder)
    run.write_job(JOB)
    lines = Journal(run.journal)
    for round in (1, 2, 3):
        lines.write({"round": round, "train_loss": 1 / round, "name": "ü"})
    write_tensors(run.model, TENSORS, {"round": 3, "classes": ["a", "b"], "scale": 0.5})
    Checkpoints(run.checkpoints, keep=2).save(2, TENSORS, {"round": 2})
    Checkpoints(run.checkpoints, keep=2).save(3, TENSORS, {"round": 3})
    Memory.start(run.clients)
    memory = Memory(run.clients, WIDTH, torch.float64, 1)
    for round in (1, 2, 3, 4):
        memory.held = round - 2, round - 1
        for client in (0, 2):
            memory.save(client, round, torch.full((WIDTH,), round + client / 8, dtype=torch.float64))
    memory.close()
    Memory.resume(run.clients, 3)
    return folder


def plain(tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    return {name: (tensor.dtype, tensor.shape, tensor.tolist()) for name, tensor in tensors.items()}


def model(folder: Path) -> Any:
    tensors, said = read_tensors(folder / "model.safetensors")
    return plain(tensors), said


def checkpoint(folder: Path) -> Any:
    found = Checkpoints(folder / "checkpoints", keep=2).last()
    assert found is not None
    return plain(found[0]), found[1]


def remembered(folder: Path) -> Any:
    memory = Memory(folder / "clients", WIDTH, torch.float64, 1, writes=False)
    try:
        vectors = [memory.load(client, upto) for client in range(3) for upto in (2, 3, 4)]
    finally:
        memory.close()
    return [None if vector is None else vector.tolist() for vector in vectors]


READERS: dict[str, tuple[str, Callable[[Path], Any], int]] = {
    "job": ("job.toml", lambda folder: RunFolder(folder).read_job(), 1),
    "journal": ("journal.jsonl", lambda folder: read_journal(folder / "journal.jsonl"), 5),
    "model": ("model.safetensors", model, 11),
    "checkpoint": ("checkpoints/round-000003.safetensors", checkpoint, 11),
    "memory": (f"clients/{SLOTS_FILE}", remembered, 19),
    "launches": (f"clients/{LAUNCHES}", remembered, 1),
}


@pytest.mark.parametrize("kind", READERS)
def test_a_flipped_bit_is_never_used_without_a_word(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name, read, every = READERS[kind]
    folder = kept(tmp_path / "run")
    whole = read(folder)
    assert not capsys.readouterr().err
    spared, lines = 0, []
    for bit in flips(folder / name, every):
        try:
            found = read(folder)
        except Refused as refused:
            lines.append(str(refused))
            continue
        told = capsys.readouterr().err
        assert found == whole or told.startswith("fedmpi: "), bit
        spared += found == whole and not told
    assert read(folder) == whole
    assert all(str(tmp_path) in line and "\n" not in line for line in lines)
    if kind != "memory":  # whose slots are apart, and whose head has bytes to spare
        assert spared == 0 or kind == "job"  # a space for a tab


def test_an_older_checkpoint_under_the_newest_name_is_no_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Checkpoints(tmp_path, keep=2)
    for round in (2, 3):
        store.save(round, TENSORS, {"round": round})
    shutil.copy(store.path(2), store.path(3))
    found = store.last()
    assert found is not None
    assert found[1]["round"] == 2
    assert "round-000003.safetensors: holds the checkpoint of round 2" in capsys.readouterr().err
    with pytest.raises(Refused, match="holds the checkpoint of round 2, not of 3"):
        store.last(newest=True)


def test_memory_that_was_swapped_between_clients_is_refused(tmp_path: Path) -> None:
    """A slot is of one client: the bytes of another's are not its own, though they are whole."""
    folder = kept(tmp_path / "run")
    path = folder / "clients" / SLOTS_FILE
    record = HEAD + SLOTS * HEAD
    whole = bytearray(path.read_bytes())
    whole[:record], whole[2 * record : 3 * record] = whole[2 * record : 3 * record], whole[:record]
    path.write_bytes(whole)
    with pytest.raises(Refused, match=r"memory\.slots: what client 0 kept was changed or damaged"):
        remembered(folder)


def test_memory_that_lost_its_end_or_its_launches_is_missed(tmp_path: Path) -> None:
    folder = kept(tmp_path / "run") / "clients"
    facts = Memory.facts(folder)
    assert Memory.check(folder, facts)
    os.truncate(folder / SLOTS_FILE, 64)
    with pytest.raises(Refused, match=r"memory\.slots: is cut short"):
        Memory.check(folder, facts)
    (folder / LAUNCHES).unlink()
    with pytest.raises(Refused, match=r"launches\.json: is not that of the last launch"):
        Memory.check(folder, {"launches": facts["launches"]})


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("thing", ["folder", "pipe", "device", "empty"])
def test_what_is_no_file_is_one_line(tmp_path: Path, kind: str, thing: str) -> None:
    name, read, _ = READERS[kind]
    folder = kept(tmp_path / "run")
    path = folder / name
    path.unlink()
    {
        "folder": path.mkdir,
        "pipe": lambda: os.mkfifo(path),
        "device": lambda: path.symlink_to("/dev/zero"),
        "empty": path.touch,
    }[thing]()
    if kind == "checkpoint":
        assert read(folder)[1]["round"] == 2  # the one before serves, and that is told
    elif thing == "empty" and kind in ("journal", "job", "memory"):
        assert not any(read(folder))  # whoever asks finds nothing in it
    else:
        with pytest.raises(Refused, match=path.name) as refused:
            read(folder)
        assert "\n" not in str(refused.value)


def test_a_line_that_lost_its_checksum_is_refused(tmp_path: Path) -> None:
    folder = kept(tmp_path / "run")
    path = folder / "journal.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert {"crc"} == {*lines[1]} - {"round", "train_loss", "name"}
    del lines[1]["crc"]
    path.write_text("".join(json.dumps(line, separators=(",", ":"), ensure_ascii=True) + "\n" for line in lines))
    with pytest.raises(Refused, match="line 2 has lost its checksum"):
        read_journal(path)
