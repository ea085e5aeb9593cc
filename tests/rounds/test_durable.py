"""A run killed at any moment goes on to the same bits, however far its disk is behind."""

from __future__ import annotations

import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

import fedmpi
from fedmpi.records.checkpoint import Checkpoints
from tests.rounds.test_run import FIXED, on, weights, without_times

DELAYS = {"quick": 0.0, "slow": 0.03}


@pytest.mark.parametrize("delay", DELAYS)
@pytest.mark.parametrize("strategy", ["fedavg", "scaffold", "fedper"])
@pytest.mark.parametrize("every", [1, 3])
def test_what_lies_on_disk_at_any_moment_is_enough_to_go_on(
    job: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: str, every: int, delay: str
) -> None:
    """The folder is copied while the run goes on, as a kill would leave it."""
    save = Checkpoints.save

    def slowly(self: Checkpoints, *parts: Any) -> None:
        time.sleep(DELAYS[delay])
        save(self, *parts)

    monkeypatch.setattr(Checkpoints, "save", slowly)
    job |= FIXED | {"strategy": strategy, "rounds": 8, "checkpoint": {"every": every, "keep": 2}}
    copies: list[Path] = []

    def copied(line: dict[str, Any]) -> None:
        copies.append(tmp_path / f"copy-{line['round']}")
        shutil.copytree(tmp_path / "run", copies[-1], ignore=shutil.ignore_patterns(".*"), copy_function=_copy)

    whole = fedmpi.train(job, out=tmp_path / "run", on_round=copied)
    monkeypatch.setattr(Checkpoints, "save", save)
    for place, copy in enumerate(copies):
        if not Checkpoints(copy / "checkpoints", 1).rounds():
            continue
        assert not (copy / "DONE").exists()
        resumed = on(1 + place % 3, job, out=copy, resume=True)[0]
        assert torch.equal(weights(resumed), weights(whole))
        assert without_times(resumed.lines) == without_times(whole.lines)


def _copy(source: str, target: str) -> None:
    """Copy a file, or not one that the run removes meanwhile."""
    with suppress(FileNotFoundError):
        shutil.copy2(source, target)


def test_ranks_know_the_newest_round_on_disk(
    job: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fedmpi.rounds import crossing as module

    seen: list[tuple[int, int]] = []
    passage = module._passage
    monkeypatch.setattr(
        module,
        "_passage",
        lambda parts, drawn: (seen.append((parts.state.round, *parts.state.held)), passage(parts, drawn))[1],
    )
    on(3, job | FIXED | {"strategy": "scaffold", "rounds": 5}, out=tmp_path / "run")
    told = {round: {one[1:] for one in seen if one[0] == round} for round in range(1, 6)}
    assert len(seen) == 3 * 5
    assert all(len(held) == 1 for held in told.values())  # the same on every rank
    for round, [(durable, under_way)] in told.items():
        assert max(durable, under_way) >= round - 3  # the one before the last was handed over, and none waits any more
        assert max(durable, under_way) <= max(round - 2, 0)
        assert under_way == 0 or durable < under_way


def test_a_slow_disk_holds_up_no_broadcast_before_a_second_checkpoint_waits(
    job: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint of round 1 is on disk only when round 3 has begun: the round between did not wait for it."""
    import threading

    third = threading.Event()
    save, late = Checkpoints.save, []

    def held(self: Checkpoints, round: int, *parts: Any) -> None:
        if round == 1:
            late.append(third.wait(20))
        save(self, round, *parts)

    monkeypatch.setattr(Checkpoints, "save", held)
    job |= FIXED | {"strategy": "scaffold", "rounds": 5}
    plain = on(3, job)[0]
    # Line 2 is written in round 3.
    run = on(3, job, out=tmp_path / "run", on_round=lambda line: third.set() if line["round"] == 2 else None)[0]
    assert late == [True]
    assert torch.equal(weights(run), weights(plain))
