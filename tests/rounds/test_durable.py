"""A run killed at any moment goes on to the same bits, however far its disk is behind."""

from __future__ import annotations

import shutil
import time
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
        shutil.copytree(tmp_path / "run", copies[-1], ignore=shutil.ignore_patterns(".*"))

    whole = fedmpi.train(job, out=tmp_path / "run", on_round=copied)
    monkeypatch.setattr(Checkpoints, "save", save)
    for place, copy in enumerate(copies):
        if not Checkpoints(copy / "checkpoints", 1).rounds():
            continue
        assert not (copy / "DONE").exists()
        resumed = on(1 + place % 3, job, out=copy, resume=True)[0]
        assert torch.equal(weights(resumed), weights(whole))
        assert without_times(resumed.lines) == without_times(whole.lines)


def test_ranks_know_the_newest_round_on_disk(
    job: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fedmpi.rounds import crossing as module

    seen: list[tuple[int, int]] = []
    passage = module._passage
    monkeypatch.setattr(
        module,
        "_passage",
        lambda parts, drawn: (seen.append((parts.state.round, parts.state.durable)), passage(parts, drawn))[1],
    )
    on(3, job | FIXED | {"strategy": "scaffold", "rounds": 5}, out=tmp_path / "run")
    assert sorted(seen) == sorted(3 * [(1, 0), (2, 0), (3, 1), (4, 2), (5, 3)])
