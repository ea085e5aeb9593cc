"""The newest state handed over reaches the disk, however slow that is, whatever becomes of its tensors meanwhile."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from fedmpi.flow import Refused
from fedmpi.records.checkpoint import Checkpoints, read_tensors
from fedmpi.records.journal import Journal
from fedmpi.records.writer import Writer


class Slow(Checkpoints):
    """A disk that takes each checkpoint when it is let."""

    def __init__(self, folder: Path, keep: int = 2) -> None:
        super().__init__(folder, keep)
        self.began, self.lets = threading.Semaphore(0), threading.Semaphore(0)
        self.wrote: list[str] = []

    def save(self, round: int, *parts: Any) -> None:
        self.began.release()
        assert self.lets.acquire(timeout=20)
        super().save(round, *parts)
        self.wrote.append(f"{round}")

    def save_best(self, round: int, *parts: Any) -> None:
        super().save_best(round, *parts)
        self.wrote.append(f"best {round}")


def state(round: int) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    return {"planes": torch.full((3,), float(round)), "strategy.m": torch.arange(round)}, {"round": round}


def of(folder: Path, checkpoints: Checkpoints | None = None) -> Writer:
    return Writer(checkpoints or Checkpoints(folder / "checkpoints", 2), Journal(folder / "journal.jsonl"))


def holds(path: Path, round: int) -> None:
    tensors, metadata = read_tensors(path)
    assert metadata["round"] == round
    assert torch.equal(tensors["planes"], torch.full((3,), float(round)))
    assert torch.equal(tensors["strategy.m"], torch.arange(round))


def test_what_is_handed_over_is_written_as_it_was(tmp_path: Path) -> None:
    writer = of(tmp_path)
    for round in range(1, 6):
        tensors, metadata = state(round)
        writer.hand(round, tensors, metadata)
        tensors["planes"].fill_(-1.0)
        metadata["round"] = -1
        writer.wait()
        assert writer.durable == round
        holds(writer.checkpoints.path(round), round)
    assert writer.checkpoints.rounds() == [4, 5]


def test_a_slow_disk_gets_the_newest_and_holds_nobody_up(tmp_path: Path) -> None:
    slow = Slow(tmp_path / "checkpoints")
    writer = of(tmp_path, slow)
    writer.hand(1, *state(1))
    slow.began.acquire()
    for round in range(2, 8):
        writer.hand(round, *state(round))  # returns
        assert writer.durable == 0
        assert len(writer.waiting) == 1
    slow.lets.release(2)
    writer.wait()
    assert slow.wrote == ["1", "7"]
    assert writer.durable == 7
    holds(slow.path(7), 7)
    assert len(writer.free) <= 1


def test_the_best_so_far_is_kept_whichever_way_it_comes(tmp_path: Path) -> None:
    slow = Slow(tmp_path / "checkpoints", keep=1)
    writer = of(tmp_path, slow)
    best = slow.folder / "best.safetensors"
    writer.hand(1, *state(1))
    slow.began.acquire()
    writer.hand_best(1, *state(1))  # while it is written
    writer.hand(2, *state(2))
    writer.hand_best(2, *state(2))  # while it waits
    writer.hand(3, *state(3))  # takes the place of 2, but not as the best
    slow.lets.release(3)
    writer.wait()
    holds(best, 2)
    assert slow.wrote == ["1", "best 1", "best 2", "3"] or slow.wrote == ["1", "best 2", "3"]
    writer.hand_best(3, *state(3))  # long on disk
    writer.wait()
    holds(best, 3)
    assert best.samefile(slow.path(3))
    writer.hand_best(4, *state(4))  # never handed over else
    writer.wait()
    holds(best, 4)
    assert slow.rounds() == [3]
    assert writer.durable == 4 or writer.durable == 3


def test_a_fault_is_raised_once_by_the_next_call(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints", 2)
    writer = of(tmp_path, checkpoints)
    (tmp_path / "checkpoints").write_text("a file")
    writer.hand(1, *state(1))
    with pytest.raises(Refused, match="checkpoints: cannot be written"):
        writer.wait()
    (tmp_path / "checkpoints").unlink()
    writer.hand(2, *state(2))
    writer.wait()
    holds(checkpoints.path(2), 2)
    assert writer.durable == 2


def test_the_journal_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    save = Checkpoints.save
    monkeypatch.setattr(Journal, "sync", lambda self: order.append("journal"))
    monkeypatch.setattr(Checkpoints, "save", lambda self, *parts: (order.append("checkpoint"), save(self, *parts)))
    writer = of(tmp_path)
    for round in (1, 2):
        writer.hand(round, *state(round))
        writer.wait()
    assert order == ["journal", "checkpoint"] * 2


def test_the_best_alone_is_nothing_to_go_on_from(tmp_path: Path) -> None:
    writer = of(tmp_path)
    writer.hand_best(3, *state(3))
    writer.wait()
    assert writer.held == (0, 0)
    holds(tmp_path / "checkpoints" / "best.safetensors", 3)


def test_one_at_most_is_under_way_behind_a_wait_for_the_begun(tmp_path: Path) -> None:
    slow = Slow(tmp_path / "checkpoints")
    writer = of(tmp_path, slow)
    writer.hand(1, *state(1))
    slow.began.acquire()
    writer.begun()
    assert writer.held == (0, 1)
    writer.hand(2, *state(2))
    slow.lets.release()
    writer.begun()
    slow.began.acquire()
    assert writer.held == (1, 2)
    slow.lets.release()
    writer.wait()
    assert writer.held == (2, 0)


def test_a_writer_rests_after_each_write_unless_somebody_waits(tmp_path: Path) -> None:
    """A tenth of the time: of rounds of 5 ms and writes of 20, one in forty."""
    wrote: list[int] = []

    class Costly(Checkpoints):
        def save(self, round: int, *parts: Any) -> None:
            wrote.append(round)
            time.sleep(0.02)
            super().save(round, *parts)

    writer = of(tmp_path, Costly(tmp_path / "checkpoints", 2))
    for round in range(1, 101):
        writer.hand(round, *state(round))
        time.sleep(0.005)
    assert 2 <= len(wrote) <= 5
    began = time.monotonic()
    writer.wait()  # the newest, at once
    assert time.monotonic() - began < 0.15
    assert wrote[-1] == writer.durable == 100
    writer.hand(101, *state(101))
    writer.begun()
    writer.wait()
    assert writer.durable == 101
