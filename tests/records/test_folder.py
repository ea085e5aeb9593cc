"""A run's folder is taken by one run at a time, and only what a run wrote is ever removed."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedmpi.flow import Refused
from fedmpi.records.folder import RunFolder

JOB = {"name": "digits", "rounds": 3, "local": {"lr": 0.1}, "aggregation": {"stages": [{"name": "fixed-point"}]}}


def taken(path: Path) -> RunFolder:
    folder = RunFolder(path / "run")
    folder.write_job(JOB)
    return folder


@pytest.mark.parametrize("there", ["nothing", "an empty folder", "somebody's files"])
@pytest.mark.parametrize(("resume", "overwrite"), [(False, False), (True, False), (False, True)])
def test_a_folder_without_a_run_may_be_taken(tmp_path: Path, there: str, resume: bool, overwrite: bool) -> None:
    folder = RunFolder(tmp_path / "run")
    if there != "nothing":
        folder.path.mkdir()
    if there == "somebody's files":
        (folder.path / "notes.txt").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    folder.take(resume, overwrite)
    assert not folder.holds_run
    assert sorted({*tmp_path.rglob("*")} - {folder.path}) == sorted({*before} - {folder.path})  # it may be made


def test_a_run_that_left_nothing_need_not_be_told_away(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_job({**JOB, "run": {"ranks": 3}})
    folder.take(resume=False, overwrite=False)
    folder.write_job(JOB)  # somebody's own job file
    with pytest.raises(Refused, match=r"--out .*job\.toml that no run wrote"):
        folder.take(resume=False, overwrite=False)


def test_a_folder_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Refused, match=r"--out .*file/run.*cannot be written"):
        RunFolder(tmp_path / "file" / "run").take(resume=False, overwrite=False)


@pytest.mark.parametrize("file", ["checkpoints/round-000001.safetensors", "journal.jsonl"])
def test_a_folder_that_holds_a_run_asks_what_is_meant(tmp_path: Path, file: str) -> None:
    folder = RunFolder(tmp_path)
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).touch()
    assert folder.holds_run
    with pytest.raises(Refused, match=r"--out .*holds a run already.*--resume.*--overwrite"):
        folder.take(resume=False, overwrite=False)
    folder.take(resume=True, overwrite=False)
    folder.take(resume=False, overwrite=True)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / file]


def test_resume_and_overwrite_together_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"--resume.*--overwrite"):
        RunFolder(tmp_path).take(resume=True, overwrite=True)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("x")
    with pytest.raises(Refused, match=r"--out .*run: is a file"):
        RunFolder(tmp_path / "run").take(resume=False, overwrite=True)
    with pytest.raises(Refused, match=r"--out .*cannot be written"):
        RunFolder(tmp_path / "run").write_job(JOB)
    with pytest.raises(Refused, match=r"--out .*cannot be written"):
        RunFolder(tmp_path / "run" / "below").write_job(JOB)


def test_the_job_goes_round(tmp_path: Path) -> None:
    folder = taken(tmp_path)
    assert folder.read_job() == JOB
    assert [path.name for path in folder.path.iterdir()] == ["job.toml"]


def test_a_folder_without_a_job_holds_no_run(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="holds no run"):
        RunFolder(tmp_path).read_job()
    (tmp_path / "job.toml").write_bytes(b"\xff = [")
    with pytest.raises(Refused, match=r"job\.toml: cannot be read"):
        RunFolder(tmp_path).read_job()


def test_clearing_removes_the_run_and_nothing_else(tmp_path: Path) -> None:
    folder = taken(tmp_path)
    folder.journal.touch()
    folder.model.touch()
    folder.done.touch()
    folder.checkpoints.mkdir()
    (folder.checkpoints / "round-000001.safetensors").touch()
    (folder.path / "notes.txt").write_text("mine")
    folder.clear()
    assert [path.name for path in folder.path.iterdir()] == ["notes.txt"]
    folder.clear()
    assert not folder.holds_run
