"""Clients dealt by the ranks' measured pace: a slow rank serves fewer, and the bits stay."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import fedmpi
from fedmpi.rounds.crossing import Crossing
from fedmpi.training import Sequential
from tests.rounds.test_run import FIXED, on, weights, without_times


def slowed(monkeypatch: pytest.MonkeyPatch, rank: int, served: dict[int, list[int]]) -> None:
    """One rank takes longer for each client; what each serves in each round is noted."""
    train = Crossing.train

    def slow(self: Crossing) -> Any:
        count = 0
        for learned in train(self):
            count += len(learned.places)
            yield learned
        served.setdefault(self.parts.comm.me, []).append(count)

    learn = Sequential.train

    def late(self: Sequential, places: Any, passage: Any) -> Any:
        for learned in learn(self, places, passage):
            time.sleep(0.02 if threading.current_thread().name.endswith(f"_{rank}") else 0.004)
            yield learned

    monkeypatch.setattr(Crossing, "train", slow)
    monkeypatch.setattr(Sequential, "train", late)


@pytest.mark.parametrize("deal", ["auto", "work", "measured"])
@pytest.mark.parametrize("exact", [True, False])
def test_a_slow_rank_serves_fewer_where_no_bits_depend_on_it(
    job: dict[str, Any], monkeypatch: pytest.MonkeyPatch, deal: str, exact: bool
) -> None:
    job |= {"rounds": 8, "cohort": {"size": 12}, "place": {"deal": deal}} | (FIXED if exact else {})
    job["local"] = {**job["local"], "engine": "sequential", "epochs": 1}
    plain = fedmpi.train(job)
    served: dict[int, list[int]] = {}
    slowed(monkeypatch, 2, served)
    run = on(3, job)[0]
    measured = deal == "measured" or (deal == "auto" and exact)
    assert served[0] == [0] * 8
    assert all(one + other == 12 for one, other in zip(served[1], served[2], strict=True))
    if measured:
        assert sum(served[2][3:]) < 0.7 * sum(served[1][3:])
    else:
        assert served[1] == [served[1][0]] * 8
    if exact:
        assert torch.equal(weights(run), weights(plain))
        assert without_times(run.lines) == without_times(plain.lines)


def test_a_run_goes_on_with_another_deal(job: dict[str, Any], tmp_path: Path) -> None:
    job |= FIXED | {"rounds": 4}
    whole = fedmpi.train(job)
    on(3, job | {"rounds": 2, "place": {"deal": "work"}}, out=tmp_path / "run")
    run = on(3, job | {"place": {"deal": "measured", "bind": "off"}}, out=tmp_path / "run", resume=True)[0]
    assert torch.equal(weights(run), weights(whole))
