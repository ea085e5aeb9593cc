"""Whole runs with every engine: near the sequential one's, and of the same bits on any ranks and over a resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import fedmpi
from fedmpi.training import ENGINES
from tests.rounds.test_resume import Killed
from tests.rounds.test_run import on, weights, without_times
from tests.rounds.test_seams import kill

KINDS: dict[str, Any] = {
    **{name: {"name": name} for name in ENGINES},
    "traced, unfused": {"name": "traced", "fuse": False},
    "batched, 2": {"name": "batched", "clients": 2},
}
every_engine = pytest.mark.parametrize("engine", KINDS)
STRATEGIES = ["fedavg", "scaffold", "fedper", "mime"]


def of(job: dict[str, Any], engine: str, strategy: str = "fedavg") -> dict[str, Any]:
    local = {**job["local"], "engine": KINDS[engine]}
    return job | {"local": local, "strategy": strategy, "aggregation": {"stages": ["fixed-point"]}}


@every_engine
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_run_has_the_same_bits_on_any_number_of_ranks(job: dict[str, Any], engine: str, strategy: str) -> None:
    one = fedmpi.train(of(job, engine, strategy))
    sequential = fedmpi.train(of(job, "sequential", strategy))
    torch.testing.assert_close(weights(one), weights(sequential), rtol=1e-4, atol=1e-5)
    if engine == "traced, unfused":
        assert torch.equal(weights(one), weights(sequential))
    for ranks in (2, 3, 5):
        several = on(ranks, of(job, engine, strategy))[0]
        assert without_times(several.lines) == without_times(one.lines)
        assert torch.equal(weights(several), weights(one))


@every_engine
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_resumed_run_comes_to_the_same_bits(job: dict[str, Any], tmp_path: Path, engine: str, strategy: str) -> None:
    whole = fedmpi.train(of(job, engine, strategy), out=tmp_path / "whole")
    with pytest.raises(Killed):
        on(3, of(job, engine, strategy), out=tmp_path / "cut", on_round=kill(3))
    resumed = fedmpi.train(of(job, engine, strategy), out=tmp_path / "cut", resume=True)
    assert torch.equal(weights(resumed), weights(whole))
    assert without_times(resumed.lines) == without_times(whole.lines)


@every_engine
@pytest.mark.parametrize("loop", ["cyclic", "ensemble"])
def test_every_loop_takes_every_engine(job: dict[str, Any], engine: str, loop: str) -> None:
    table = of(job, engine, "local" if loop == "ensemble" else "fedavg") | {"loop": loop, "aggregation": {}}
    one, three = fedmpi.train(table), on(3, table)[0]
    assert torch.equal(weights(one), weights(three))
