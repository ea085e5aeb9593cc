"""`jobs/train.sbatch`: what it asks of `fedmpi train`, and what it makes of how that ends."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "jobs" / "train.sbatch"


class Allocation:
    """A folder with a `fedmpi` and a `scontrol` of our own, and the variables of a batch job."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.program("scontrol", 'echo "$@" >>scontrol.log; exit 1')  # 1: the script is not ended by it
        self.environ = {
            "PATH": f"{self.bin}:/usr/bin:/bin",
            "SLURM_JOB_ID": "7",
            "SLURM_NTASKS": "3",
            "SLURM_JOB_NODELIST": "n1",
            "SLURM_JOB_NUM_NODES": "1",
        }

    def program(self, name: str, text: str) -> None:
        (self.bin / name).write_text(f"#!/bin/sh\n{text}\n")
        (self.bin / name).chmod(0o755)

    def trainer(self, text: str) -> None:
        self.program("fedmpi", f'echo "$@" >>fedmpi.log\n{text}')

    def start(self, *arguments: str, **more: str) -> subprocess.Popen[bytes]:
        environ = {**self.environ, **more}
        return subprocess.Popen(["/bin/bash", str(SCRIPT), *arguments], cwd=self.folder, env=environ)

    def run(self, *arguments: str, **more: str) -> int:
        return self.start(*arguments, **more).wait(30)

    def log(self, name: str) -> list[str]:
        file = self.folder / f"{name}.log"
        return file.read_text().splitlines() if file.exists() else []


@pytest.fixture
def allocation(tmp_path: Path) -> Allocation:
    return Allocation(tmp_path)


COMPLETE = "mkdir -p runs/digits-7; touch runs/digits-7/job.toml runs/digits-7/DONE"


def test_a_run_that_ends_well(allocation: Allocation) -> None:
    allocation.trainer(COMPLETE)
    assert allocation.run("jobs/digits.toml", "--set", "rounds=5") == 0
    assert allocation.log("fedmpi") == ["train jobs/digits.toml --set rounds=5 -n 3 --out runs/digits-7"]
    assert allocation.log("scontrol") == []


@pytest.mark.parametrize(("ends", "code"), [(0, 75), (75, 75), (85, 85), (138, 138)])
def test_an_unfinished_run_is_queued_again(allocation: Allocation, ends: int, code: int) -> None:
    allocation.trainer(f"exit {ends}")
    assert allocation.run("digits.toml") == code
    assert allocation.log("scontrol") == ["requeue 7"]
    assert allocation.run("digits.toml", SLURM_RESTART_COUNT="5") == code
    assert allocation.log("scontrol") == ["requeue 7"]


@pytest.mark.parametrize("ends", [1, 2, 137])
def test_a_run_that_failed_is_not(allocation: Allocation, ends: int) -> None:
    allocation.trainer(f"exit {ends}")
    assert allocation.run("digits.toml") == ends
    assert allocation.log("scontrol") == []


def test_done_outweighs_how_the_launcher_ended(allocation: Allocation) -> None:
    allocation.trainer(f"{COMPLETE}; exit 1")
    assert allocation.run("digits.toml") == 0


def test_the_done_of_another_run_does_not(allocation: Allocation) -> None:
    (allocation.folder / "old").mkdir()
    for name in ("job.toml", "DONE"):
        (allocation.folder / "old" / name).touch()
    allocation.trainer("exit 1")
    assert allocation.run("digits.toml", "--out", "old") == 1


def test_a_run_that_is_there_is_gone_on_with(allocation: Allocation) -> None:
    (allocation.folder / "mine").mkdir()
    (allocation.folder / "mine" / "job.toml").touch()
    allocation.trainer("touch mine/DONE")
    for arguments in (["--out", "mine"], ["--out=mine", "--resume"], ["--out", "mine", "--overwrite"]):
        assert allocation.run("digits.toml", *arguments) == 0
    assert allocation.run("digits.toml", "--out", "mine", "--overwrite", SLURM_RESTART_COUNT="1") == 0
    told = [line.split()[2] for line in allocation.log("fedmpi")]
    assert told == ["--resume", "--resume", "--overwrite", "--resume"]


def test_usr1_is_passed_on_and_the_end_awaited(allocation: Allocation) -> None:
    allocation.trainer("trap 'sleep 0.3; exit 85' USR1; touch ready; while :; do sleep 0.05; done")
    batch = allocation.start("digits.toml")
    end = time.monotonic() + 10
    while not (allocation.folder / "ready").exists() and time.monotonic() < end:
        time.sleep(0.02)
    batch.send_signal(signal.SIGUSR1)
    assert batch.wait(10) == 85
    assert allocation.log("scontrol") == ["requeue 7"]


def test_usr1_is_worth_another_start_and_term_is_not(allocation: Allocation) -> None:
    """Both are asked for in time and saved: 75.  Whoever cancels a job does not want it back."""
    for number, queued in ((signal.SIGUSR1, ["requeue 7"]), (signal.SIGTERM, [])):
        (allocation.folder / "scontrol.log").unlink(missing_ok=True)
        (allocation.folder / "ready").unlink(missing_ok=True)
        allocation.trainer("trap 'exit 75' USR1 TERM; touch ready; while :; do sleep 0.05; done")
        batch = allocation.start("digits.toml")
        end = time.monotonic() + 10
        while not (allocation.folder / "ready").exists() and time.monotonic() < end:
            time.sleep(0.02)
        batch.send_signal(number)
        assert batch.wait(10) == 75
        assert allocation.log("scontrol") == queued


def test_a_launcher_that_lingers_after_done_is_ended(allocation: Allocation) -> None:
    allocation.trainer(f"{COMPLETE}; exec sleep 60")
    assert allocation.run("digits.toml", LINGER="0") == 0


def test_what_is_missing_is_said(allocation: Allocation, capfd: pytest.CaptureFixture[str]) -> None:
    assert allocation.run("digits.toml") == 2
    assert "no fedmpi on the PATH" in capfd.readouterr().err
    assert allocation.run() == 2
    assert "usage" in capfd.readouterr().err


def test_nothing_of_one_site_is_in_it() -> None:
    directives = [line for line in SCRIPT.read_text().splitlines() if line.lstrip("#").startswith("SBATCH")]
    assert not [line for line in directives if "partition" in line or "account" in line]
    assert subprocess.run(["/bin/bash", "-n", str(SCRIPT)]).returncode == 0


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_is_content() -> None:
    assert subprocess.run(["shellcheck", str(SCRIPT)], env=os.environ).returncode == 0
