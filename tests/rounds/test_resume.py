"""A run that was cut short goes on as if it had not been, and only as the run that it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import fedmpi
from fedmpi.evaluation.tasks import Classification
from fedmpi.flow import Refused
from fedmpi.job import JobError
from fedmpi.records import writer
from fedmpi.records.checkpoint import read_tensors
from fedmpi.records.folder import RunFolder
from fedmpi.records.journal import read_journal
from fedmpi.report.runs import read_run
from tests.rounds.test_run import FIXED, on, weights, without_times


@pytest.fixture(autouse=True)
def _every_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint of every round, however short they are."""
    monkeypatch.setattr(writer, "REST", 0)


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
    lines = read_journal(tmp_path / "cut" / "journal.jsonl")
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


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def kill_at(line: dict[str, Any], round: int) -> None:
    if line["round"] == round:
        raise Killed


def spoil(path: Path) -> None:
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)


def all_damaged(folder: Path) -> None:
    for path in (folder / "checkpoints").iterdir():
        spoil(path)


def best_alone(folder: Path) -> None:
    for path in (folder / "checkpoints").glob("round-*"):
        path.unlink()


def gone(folder: Path) -> None:
    best_alone(folder)
    (folder / "checkpoints" / "best.safetensors").unlink()


def empty_job(folder: Path) -> None:
    (folder / "job.toml").write_text("")


def poor_job(folder: Path) -> None:
    (folder / "job.toml").write_text('name = "blobs"\n')


def folder_job(folder: Path) -> None:
    (folder / "job.toml").unlink()
    (folder / "job.toml").mkdir()


def edited_job(folder: Path) -> None:
    text = (folder / "job.toml").read_text()
    (folder / "job.toml").write_text(text.replace("lr = 0.1", "lr = 0.2", 1))


def edited_journal(folder: Path) -> None:
    path = folder / "journal.jsonl"
    path.write_text(path.read_text().replace('"round":2', '"round":1', 1))


@pytest.mark.parametrize(
    ("spoiled", "told"),
    [
        (all_damaged, "no checkpoint can be read.*--overwrite begins again"),
        (best_alone, "the best model alone.*--overwrite begins again"),
        (gone, "no checkpoint any more.*--overwrite begins again"),
        (empty_job, r"job\.toml: is not the job of a run: .*rounds: is missing"),
        (poor_job, r"job\.toml: is not the job of a run: .*rounds: is missing"),
        (folder_job, r"job\.toml: is a folder"),
        (edited_job, r"job\.toml: was changed or damaged"),
        (edited_journal, r"journal\.jsonl: line 2"),
    ],
)
def test_a_resume_that_is_refused_changes_nothing(
    job: dict[str, Any], tmp_path: Path, spoiled: Callable[[Path], None], told: str
) -> None:
    folder = tmp_path / "run"
    fedmpi.train(job, out=folder)
    spoiled(folder)
    before = everything(folder)
    with pytest.raises(Refused, match=told) as refused:
        on(2, job | {"rounds": 8}, out=folder, resume=True)
    assert "\n" not in str(refused.value)
    assert everything(folder) == before
    again = fedmpi.train(job, out=folder, overwrite=True)
    assert [line["round"] for line in again.lines] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("every", [0, 4], ids=["never due", "not due yet"])
def test_a_run_that_left_no_checkpoint_begins_anew_and_keeps_its_journals(
    job: dict[str, Any], tmp_path: Path, every: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a queue's requeue does, which always says --resume."""
    job |= FIXED | {"checkpoint": {"every": every}}
    folder, journals = tmp_path / "run", []
    for after in (1, 2):
        with pytest.raises(Killed):
            fedmpi.train(job, out=folder, resume=True, on_round=lambda line, after=after: kill_at(line, after))
        journals.append((folder / "journal.jsonl").read_bytes())
    assert "begins anew; its journal is now journal-1.jsonl" in capsys.readouterr().err
    resumed = on(2, job, out=folder, resume=True)[0]
    assert "begins anew; its journal is now journal-2.jsonl" in capsys.readouterr().err
    assert [(folder / f"journal-{place}.jsonl").read_bytes() for place in (1, 2)] == journals
    assert [line["round"] for line in resumed.lines] == [1, 2, 3, 4, 5]


def test_falling_back_is_told_and_gives_the_same_bits(
    job: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job |= FIXED
    whole = fedmpi.train(job, out=tmp_path / "whole")
    with pytest.raises(Killed):
        fedmpi.train(job, out=tmp_path / "run", on_round=lambda line: kill_at(line, 4))
    newest = max((tmp_path / "run" / "checkpoints").glob("round-*"))
    spoil(newest)
    resumed = on(2, job, out=tmp_path / "run", resume=True)[0]
    told = capsys.readouterr().err
    assert told.count("fedmpi: ") == 2
    assert f"{newest}: was changed or damaged" in told
    assert "the run goes on from the checkpoint of round 3" in told
    assert "round 4 came after the last checkpoint, and are trained again" in told
    assert torch.equal(weights(resumed), weights(whole))
    assert without_times(resumed.lines) == without_times(whole.lines)


def test_a_journal_cut_short_is_told(job: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Killed):
        fedmpi.train(job, out=tmp_path / "run", on_round=lambda line: kill_at(line, 4))
    path = tmp_path / "run" / "journal.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:1]))
    fedmpi.train(job, out=tmp_path / "run", resume=True)
    assert "has no line of rounds 2 to 3; the run goes on without" in capsys.readouterr().err


def test_more_rounds_where_the_schedule_counts_them(
    job: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each round has the rate of the schedule that it was trained under; without being asked it is refused."""
    job["local"] |= {"schedule": "cosine"}
    long = job | {"rounds": 8}
    fedmpi.train(job, out=tmp_path / "run")
    with pytest.raises(JobError, match=r"rounds: 8 given, it was 5.*--reschedule"):
        fedmpi.train(long, out=tmp_path / "run", resume=True)
    more = fedmpi.train(long, out=tmp_path / "run", resume=True, reschedule=True)
    assert "--reschedule: the schedule counts 8 rounds from now on; the first 5" in capsys.readouterr().err
    rates = [[line["lr"] for line in fedmpi.train(one).lines] for one in (job, long)]
    assert [line["lr"] for line in more.lines] == pytest.approx(rates[0] + rates[1][5:])
    with pytest.raises(JobError, match=r"--reschedule: .*--resume"):
        fedmpi.train(long, out=tmp_path / "other", reschedule=True)
    with pytest.raises(JobError, match="rounds: 4 given, but the run has been through 8"):
        fedmpi.train(job | {"rounds": 4}, out=tmp_path / "run", resume=True, reschedule=True)


def test_the_best_of_another_metric_is_no_best(
    job: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An accuracy of .8 as the best loss so far would never be beaten upwards, nor kept."""
    fedmpi.train(job | {"stop": {"metric": "loss"}}, out=tmp_path / "run")
    fedmpi.train(job | {"rounds": 7, "stop": {"metric": "accuracy"}}, out=tmp_path / "run", resume=True)
    assert "stop: looks at accuracy from now on" in capsys.readouterr().err
    _, said = read_tensors(tmp_path / "run" / "checkpoints" / "best.safetensors")
    assert said["round"] >= 5
    assert read_tensors(tmp_path / "run" / "model.safetensors")[1]["best"] == said["round"]


def test_the_run_says_which_scores_are_better_low(job: dict[str, Any], tmp_path: Path) -> None:
    """A report knows no module of the user's: it takes the best by what the run wrote."""

    def error(outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return 1 - outputs.softmax(-1)[torch.arange(len(y)), y].double().mean()

    class Mine(Classification):
        metrics = {**Classification.metrics, "error": error}

    error.higher_is_better = False
    fedmpi.train(job | {"evaluation": {"metrics": ["error", "accuracy"]}}, task=Mine, out=tmp_path / "run")
    run = read_run(tmp_path / "run")
    errors = run.values("evaluation", "test", "error")
    assert run.best("error", "evaluation", "test", "error")[0] == min(errors.values()) < max(errors.values())
    assert run.job["run"]["lower"] == ["loss", "error"]
