"""Whole runs with every engine: near the sequential one's, and of the same bits on any ranks and over a resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import fedmpi
from fedmpi.job import read
from fedmpi.strategies import Strategy
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


class Own(Strategy):
    def loss(self, *given: Any) -> torch.Tensor:
        return super().loss(*given)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({}, "batched"),
        ({"strategy": "ditto"}, "batched"),
        ({"strategy": "moon"}, "traced"),
        ({"strategy": "fedsgd", "local": {}}, "traced"),
        ({"strategy": "tests.rounds.test_engines:Own"}, "sequential"),
        ({"loop": "cyclic"}, "traced"),
        ({"local": {"remainder": "merge", "batch": 4}}, "traced"),
        ({"model": {"name": "mlp", "hidden": [600, 600]}}, "traced"),
    ],
    ids=str,
)
def test_the_job_and_the_model_choose_the_engine_and_the_resolved_job_says_which(
    job: dict[str, Any], tmp_path: Path, change: dict[str, Any], name: str
) -> None:
    job |= {"rounds": 1, **change}
    job["local"] = {**job["local"], **change["local"]} if change.get("local") else change.get("local", job["local"])
    job["local"] = {**job["local"], "engine": "auto"}
    run = fedmpi.train(job, out=tmp_path / "run")
    assert run.job.local.engine.name == name
    assert read(tmp_path / "run" / "job.toml").local.engine.name == name


@pytest.mark.parametrize("kind", ["pooled", "local"])
def test_baselines_train_by_every_engine(job: dict[str, Any], tmp_path: Path, kind: str) -> None:
    """One client at a time, whatever the engine does with a cohort: to the eager model, and away from the first."""
    from fedmpi.job import validate
    from fedmpi.records.journal import read_journal
    from fedmpi.rounds import baseline

    losses = {}
    for name in [*ENGINES]:
        baseline(validate(of(job, name)), None, kind, tmp_path / name)
        lines = read_journal(tmp_path / name / "baselines" / kind / "journal.jsonl")
        losses[name] = [line["train_loss"] for line in lines]
        assert losses[name] == pytest.approx(losses["sequential"], rel=1e-5)
    assert losses["sequential"][-1] < 0.95 * losses["sequential"][0]


def test_what_no_recording_holds_is_told_in_the_journal(job: dict[str, Any]) -> None:
    for model, engine, told in (
        (branching, "traced", True),
        (branching, "batched", True),
        (None, "traced", False),
        (None, "batched", False),
        (branching, "sequential", False),
    ):
        table = of(job, engine) | ({"model": {"name": "mine"}} if model else {})
        run = fedmpi.train(table, model=model)
        for line in run.lines:
            assert ("engine" in line) == told
            if told:
                assert 0 < line["engine"]["eager"] <= line["steps"]  # batches of the job's own size


def branching(shape: tuple[int, ...], outputs: int) -> torch.nn.Module:
    class Branches(torch.nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = super().forward(input if input.sum() > 0 else 2 * input)
            return out

    return Branches(shape[0], outputs)
