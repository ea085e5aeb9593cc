"""Whole runs with stages, a path and an engine of one's own, by `package.module:Class`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import fedmpi
from fedmpi.flow import Refused
from fedmpi.job import JobError
from fedmpi.records.checkpoint import read_tensors
from fedmpi.records.ledger import Ledger, read_ledger
from tests import seams
from tests.rounds.test_resume import Killed
from tests.rounds.test_run import FIXED, on, weights, without_times

TOPK, COUNTED = "tests.seams:TopK", "tests.seams:Counted"
PATH, ENGINE = "tests.seams:Beside", "tests.seams:Pairs"


def staged(*stages: Any, **others: Any) -> dict[str, Any]:
    return {"aggregation": {"stages": [*stages], **others}}


def kill(round: int) -> Any:
    def listener(line: dict[str, Any]) -> None:
        if line["round"] == round:
            raise Killed

    return listener


@pytest.mark.parametrize("strategy", ["fedavg", "scaffold", "fedper"])
def test_a_stage_s_memory_of_each_client_goes_with_it_from_rank_to_rank_and_over_a_resume(
    job: dict[str, Any], tmp_path: Path, strategy: str
) -> None:
    job |= staged(TOPK, "fixed-point") | {"strategy": strategy}
    whole = fedmpi.train(job, out=tmp_path / "whole")
    with pytest.raises(Killed):
        fedmpi.train(job, out=tmp_path / "cut", on_round=kill(3))
    resumed = on(4, job, out=tmp_path / "cut", resume=True)[0]
    assert torch.equal(weights(resumed), weights(whole))
    assert without_times(resumed.lines) == without_times(whole.lines)
    assert all(line["stages"]["dropped"] > 0 for line in whole.lines)


def test_without_its_memory_the_same_stage_comes_to_something_else(
    job: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What would stay unseen, were the memory never loaded."""
    job |= staged(TOPK, "fixed-point")
    whole = weights(fedmpi.train(job))
    encode = seams.TopK.encode

    def forgetful(self: Any, wire: Any, passage: Any) -> Any:
        passage.memory["rest"].zero_()
        return encode(self, wire, passage)

    monkeypatch.setattr(seams.TopK, "encode", forgetful)
    assert not torch.equal(weights(fedmpi.train(job)), whole)


@pytest.mark.parametrize("ranks", [1, 3])
@pytest.mark.parametrize("strategy", ["fedavg", "scaffold", "mime"])
def test_a_path_of_one_s_own_is_the_weighted_mean_too(job: dict[str, Any], ranks: int, strategy: str) -> None:
    job |= {"strategy": strategy, "model": {"name": "mlp", "hidden": [8], "dtype": "float64"}}
    plain = on(ranks, job)[0]
    own = on(ranks, job | staged(path=PATH))[0]
    torch.testing.assert_close(weights(own), weights(plain), rtol=1e-9, atol=1e-11)
    assert [line["weight"] for line in own.lines] == pytest.approx([line["weight"] for line in plain.lines])


def test_a_path_s_options_are_its_own_and_its_job_resolves_to_them(job: dict[str, Any], tmp_path: Path) -> None:
    still = fedmpi.train(job | staged(path={"name": PATH, "scale": 1e-30}), out=tmp_path / "run")
    begun = fedmpi.train(job | {"rounds": 1, "local": {"lr": 1e-30}})
    torch.testing.assert_close(weights(still), weights(begun))
    assert 'name = "tests.seams:Beside"' in (tmp_path / "run" / "job.toml").read_text()
    again = fedmpi.train(tmp_path / "run" / "job.toml")
    assert torch.equal(weights(again), weights(still))


@pytest.mark.parametrize("ranks", [1, 3])
@pytest.mark.parametrize("stages", [["fixed-point"], [TOPK, "fixed-point"]], ids=str)
@pytest.mark.parametrize("strategy", ["fedavg", "scaffold", "fedbn", "mime", "ditto"])
def test_an_engine_of_one_s_own_that_hands_on_rows_of_two_gives_the_same_bits(
    job: dict[str, Any], ranks: int, stages: list[str], strategy: str
) -> None:
    if strategy == "mime" and TOPK in stages:
        return  # refused: tests/plan/test_refusals.py
    from tests.strategies import cases

    job |= staged(*stages) | {"strategy": strategy, "model": "mine"}
    job["local"] = {**job["local"], "engine": "sequential"}
    plain = on(ranks, job, model=cases.model)[0]
    job["local"] = {**job["local"], "engine": ENGINE}
    own = on(ranks, job, model=cases.model)[0]
    assert torch.equal(weights(own), weights(plain))
    assert without_times(own.lines) == without_times(plain.lines)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"local": {"engine": "sequentail"}}, "local.engine: 'sequentail' given; there are sequential, traced"),
        ({"local": {"engine": {"name": "sequential", "size": 3}}}, "local.engine.size: is not an option of sequential"),
        ({"local": {"engine": "tests.seams:Half"}}, "'tests.seams:Half' gave a Half; it should be an Engine"),
        ({"local": {"engine": "tests.seams:None_"}}, "local.engine"),
        (staged(path="redcue"), "aggregation.path: 'redcue' given; there are reduce, or package.module:name; did you"),
        (staged(path={"name": "reduce", "scale": 2}), "aggregation.path.scale: is not an option of reduce"),
        (staged(path="tests.seams:Half"), "'tests.seams:Half' gave a Half; it should be a Path"),
        (staged("fixed-point", path="tests.seams:Half"), "gave a Half; it should be a Path"),
        (staged("tests.seams:Fixed") | {"strategy": "scaffold"}, None),
    ],
    ids=str,
)
def test_what_is_no_path_and_no_engine_is_refused_before_a_rank_starts(
    job: dict[str, Any], change: dict[str, Any], words: str | None
) -> None:
    if words is None:
        fedmpi.train(job | change | {"rounds": 1})
        return
    with pytest.raises(JobError) as refused:
        fedmpi.train(job | change)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


class Uniform(seams.Stage):
    totals = {"uniform": 7.0}


def test_a_fixed_total_that_leaves_a_weighting_out_is_refused(job: dict[str, Any]) -> None:
    stage = f"{__name__}:Uniform"
    with pytest.raises(JobError, match="the total of uniform is fixed, and 'examples' weighs a plane"):
        fedmpi.train(job | staged(stage))
    run = fedmpi.train(job | staged(stage, weights="uniform") | {"rounds": 1})
    assert run.lines[0]["weight"] == 7.0
    plain = fedmpi.train(job | {"aggregation": {"weights": "uniform"}, "rounds": 1})
    torch.testing.assert_close(weights(run), weights(plain))  # its cohort is of 7


# What a rank's stages keep, what a crossing costs, and the number of a launch.


def seen(folder: Path, round: int) -> dict[str, int]:
    tensors, _ = read_tensors(folder / "checkpoints" / f"round-{round:06d}.safetensors")
    return {name: int(value) for name, value in tensors.items() if name.startswith("stages.")}


@pytest.mark.parametrize(("before", "after"), [(1, 1), (3, 3), (3, 1), (2, 4), (4, 3)])
def test_what_each_rank_s_stages_keep_comes_back_on_any_number_of_ranks(
    job: dict[str, Any], tmp_path: Path, before: int, after: int
) -> None:
    """No rank's part is lost: those of ranks that are no more are dealt to the rest."""
    job |= staged("fixed-point", COUNTED)
    on(before, job | {"rounds": 3}, out=tmp_path / "run")
    key = f"{COUNTED}.seen"
    assert seen(tmp_path / "run", 3) == {f"stages.{rank}.{key}": 3 for rank in range(before)}
    run = on(after, job | {"rounds": 5}, out=tmp_path / "run", resume=True)[0]
    states = seen(tmp_path / "run", 5)
    assert sum(states.values()) == 3 * before + 2 * after
    assert len(states) == after
    assert torch.equal(weights(run), weights(fedmpi.train(job | {"rounds": 5})))


def test_what_a_crossing_costs_is_written_before_it_begins_and_never_taken_back(
    job: dict[str, Any], tmp_path: Path
) -> None:
    job |= staged("fixed-point", COUNTED) | {"strategy": "mime"}
    lengths: list[int] = []
    folder = tmp_path / "run"

    def look(line: dict[str, Any]) -> None:
        lengths.append(len(read_ledger(folder / "ledger.jsonl")))
        if len(lengths) == 3:
            raise Killed

    with pytest.raises(Killed):
        fedmpi.train(job, out=folder, on_round=look)
    assert lengths == [4, 6, 8]  # line t is written once round t + 1 has crossed, twice
    on(2, job, out=folder, resume=True)
    lines = read_ledger(folder / "ledger.jsonl")
    rounds = [(line["launch"], line["round"], line["crossing"]) for line in lines]
    assert rounds == [(1, round, crossing) for round in (1, 2, 3, 4) for crossing in (0, 1)] + [
        (2, round, crossing) for round in (4, 5) for crossing in (0, 1)
    ]
    assert all(line["charges"] == {COUNTED: {"epsilon": 0.5, "clients": 7}} for line in lines)
    fedmpi.train(job | {"rounds": 1}, out=folder, overwrite=True)
    assert [line["launch"] for line in read_ledger(folder / "ledger.jsonl")] == [1, 1]


def test_a_ledger_drops_a_torn_line_and_refuses_a_changed_one(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    assert read_ledger(path) == []
    for number in (1, 2):
        Ledger(path).write({"round": number})
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"round":3,"char')
    assert [line["round"] for line in read_ledger(path)] == [1, 2]
    Ledger(path).write({"round": 4})
    assert [line["round"] for line in read_ledger(path)] == [1, 2, 4]
    for wrong in (whole.replace(b"1", b"7", 1), whole + b"{}\n", whole + b"\n"):
        path.write_bytes(wrong)
        with pytest.raises(Refused, match=r"ledger.jsonl: line \d is no line of a ledger"):
            read_ledger(path)


def test_a_launch_has_a_number_of_its_own_even_after_one_that_left_nothing(job: dict[str, Any], tmp_path: Path) -> None:
    """Keys of masks and noise are of one launch: none may come twice."""
    launches = []
    folder = tmp_path / "run"
    job |= staged("fixed-point", COUNTED)
    for round in (1, 1, 2, 2):
        with pytest.raises(Killed):
            fedmpi.train(job | {"checkpoint": {"every": 2}}, out=folder, resume=True, on_round=kill(round))
        launches.append(json.loads((folder / "ledger.jsonl").read_text().splitlines()[-1])["launch"])
    assert launches == [1, 2, 3, 4]


class Hidden(seams.Stage):
    hides = True


def test_a_stage_may_hide_what_would_be_told_of_single_clients(job: dict[str, Any]) -> None:
    [run, *_] = on(3, job | staged(f"{__name__}:Hidden", "fixed-point"))
    for line in run.lines:
        assert not line.keys() & {"examples", "steps"}
        assert line["train_loss"] is None
        assert line["clients"] == 7
        assert "clients" not in line["evaluation"]
    plain = fedmpi.train(job | FIXED)
    assert "clients" in plain.lines[0]["evaluation"]
    assert torch.equal(weights(run), weights(plain))
