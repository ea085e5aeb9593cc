"""A run that was cut short goes on as if it had not been, and only as the run that it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import fedmpi
from fedmpi.job import JobError
from fedmpi.records import journal
from fedmpi.records.folder import RunFolder
from tests.rounds.test_run import FIXED, on, weights, without_times


class Killed(BaseException):
    """As a SIGKILL would: nothing that catches errors sees it."""


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("after", [1, 3, 4])
def test_resume_equals_never_stopping(job: dict[str, Any], tmp_path: Path, after: int, optimizer: str) -> None:
    """Killed after any line and resumed, also on another number of ranks, a run ends in the same bits and lines."""
    job |= FIXED | {"server": {"optimizer": optimizer, "lr": 0.1}}
    whole = fedmpi.train(job, out=tmp_path / "whole")

    def kill(line: dict[str, Any]) -> None:
        if line["round"] == after:
            raise Killed

    with pytest.raises(Killed):
        fedmpi.train(job, out=tmp_path / "cut", on_round=kill)
    resumed = on(3, job, out=tmp_path / "cut", resume=True)[0]
    assert torch.equal(weights(resumed), weights(whole))
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    lines = journal.read(tmp_path / "cut" / "journal.jsonl")
    assert without_times(lines) == without_times(whole.lines)
    assert (tmp_path / "cut" / "DONE").exists()


def test_a_finished_run_goes_on_with_more_rounds(job: dict[str, Any], tmp_path: Path) -> None:
    job |= FIXED
    long = fedmpi.train(job | {"rounds": 8})
    fedmpi.train(job, out=tmp_path / "run")
    more = fedmpi.train(job | {"rounds": 8}, out=tmp_path / "run", resume=True)
    assert torch.equal(weights(more), weights(long))
    assert without_times(more.lines) == without_times(long.lines)


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("seed", {"seed": 4}),
        ("model.hidden", {"model": {"name": "mlp", "hidden": [9]}}),
        ("local.lr", {"local": {"lr": 0.2, "batch": 4, "epochs": 2}}),
        ("strategy.name", {"strategy": "fedsgd", "local": {"lr": 0.1}}),
    ],
)
def test_resume_refuses_another_job_by_its_field(
    job: dict[str, Any], tmp_path: Path, field: str, change: dict[str, Any]
) -> None:
    fedmpi.train(job, out=tmp_path / "run")
    before = (tmp_path / "run" / "job.toml").read_bytes()
    with pytest.raises(JobError, match=field):
        fedmpi.train(job | change, out=tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "job.toml").read_bytes() == before


def test_resume_to_more_rounds_is_refused_where_the_schedule_counts_them(job: dict[str, Any], tmp_path: Path) -> None:
    job["local"] |= {"schedule": "cosine"}
    fedmpi.train(job, out=tmp_path / "run")
    with pytest.raises(JobError, match="rounds"):
        fedmpi.train(job | {"rounds": 8}, out=tmp_path / "run", resume=True)


def test_a_run_from_before_a_field_was_there_goes_on(job: dict[str, Any], tmp_path: Path) -> None:
    """Its job.toml lacks the field: the default is what it ran with, and another value is another job."""
    job |= FIXED
    fedmpi.train(job, out=tmp_path / "run")
    kept = RunFolder(tmp_path / "run")
    table = kept.read_job()
    assert table["local"].pop("remainder") == "keep"
    kept.write_job(table)
    with pytest.raises(JobError, match=r"local\.remainder: 'drop' given, it was 'keep'"):
        fedmpi.train(
            job | {"local": job["local"] | {"remainder": "drop"}, "rounds": 6}, out=tmp_path / "run", resume=True
        )
    more = fedmpi.train(job | {"rounds": 6}, out=tmp_path / "run", resume=True)
    assert torch.equal(weights(more), weights(fedmpi.train(job | {"rounds": 6})))
