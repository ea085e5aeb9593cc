"""Twelve interrupts of real launches: how each ends, what it leaves behind, and that the run goes on to the same bits.

    python -m tests.interrupts [CASE ...]     # the MPI of this Python; a table, and 1 where a line of it is wrong

Ctrl-C once and twice, SIGTERM and SIGKILL of `mpirun` and of each of three ranks, USR1, SIGSTOP and SIGCONT.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file

import fedmpi

RANKS = 3
PATIENCE = 120.0  # seconds: a hang is a failure
SHM = Path("/dev/shm")
CLOCKED = ("seconds", "idle", "bytes", "crc")
JOB = """
name = "interrupted"
seed = 1
rounds = {rounds}
threads = 1
[data]
shards = "{shards}"
[cohort]
size = 4
[model]
name = "mlp"
hidden = [8]
[local]
lr = 0.05
batch = 8
epochs = 1
[strategy]
name = "scaffold"
[aggregation]
stages = ["fixed-point"]
[evaluation]
every = 10
[checkpoint]
every = 7
"""


def make(folder: Path, rounds: int) -> Path:
    """A shard set of five small clients, and a job over it whose clients keep something."""
    random = np.random.default_rng(0)
    clients = {}
    for client in range(5):
        y = random.integers(0, 3, 24)
        clients[f"c{client}"] = (random.normal(size=(24, 4)).astype(np.float32) + y[:, None], y)
    fedmpi.write_shards(folder / "shards", clients, holdout=0.25, classes=("a", "b", "c"))
    job = folder / "job.toml"
    job.write_text(JOB.format(rounds=rounds, shards=folder / "shards"))
    return job


def lines(run: Path) -> list[dict[str, Any]]:
    """A journal without what a clock says; a torn last line, while it is written, is left out."""
    path = run / "journal.jsonl"
    found = []
    for text in path.read_text().splitlines() if path.exists() else []:
        with suppress(ValueError):
            line = json.loads(text)
            found.append({name: part for name, part in line.items() if name not in CLOCKED})
    return found


def bits(run: Path) -> dict[str, bytes]:
    """The final model's, by name: a file's head may list its parts in any order."""
    return {name: tensor.numpy().tobytes() for name, tensor in load_file(run / "model.safetensors").items()}


@dataclass
class Launch:
    """`fedmpi train` on three ranks, in a session, a TMPDIR and a run folder of its own."""

    job: Path
    run: Path
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __enter__(self) -> Launch:
        self.tmp = self.run.with_name(f"{self.run.name}.tmp")
        self.tmp.mkdir()
        self.output = self.run.with_name(f"{self.run.name}.out")
        self.shared = set(os.listdir(SHM)) if SHM.exists() else set()
        words = ["train", str(self.job), "-n", str(RANKS), "--out", str(self.run), "--quiet"]
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "fedmpi", *words],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "TMPDIR": str(self.tmp), "INTERRUPTED": self.mark},
                start_new_session=True,
                preexec_fn=_hears,
            )
        return self

    def __exit__(self, *error: object) -> None:
        for pid in [self.process.pid, *self.processes()]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def processes(self) -> dict[int, dict[str, str]]:
        """Everything that this launch started and that still runs: pid and environment."""
        found = {}
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                environ = (entry / "environ").read_bytes()
                if f"INTERRUPTED={self.mark}".encode() in environ and int(entry.name) != self.process.pid:
                    pairs = (text.partition("=") for text in environ.decode(errors="replace").split("\0"))
                    found[int(entry.name)] = {name: value for name, _, value in pairs}
        return found

    def mpirun(self) -> int:
        """The process that the launcher started."""
        for pid in self.processes():
            with suppress(OSError):
                stat = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
                if int(stat[1]) == self.process.pid:
                    return pid
        raise AssertionError("there is no mpirun")

    def rank(self, number: int) -> int:
        for pid, environ in self.processes().items():
            ranks = [environ.get(name) for name in ("OMPI_COMM_WORLD_RANK", "PMI_RANK")]
            if str(number) in ranks:
                return pid
        raise AssertionError(f"there is no rank {number}")

    def rounds(self, more: int) -> None:
        """Until so many more lines are in the journal."""
        have, end = len(lines(self.run)), time.monotonic() + PATIENCE
        while len(lines(self.run)) < have + more:
            assert self.process.poll() is None, self.output.read_text()
            assert time.monotonic() < end, "the run does not go on"
            time.sleep(0.02)

    def end(self) -> tuple[int, str]:
        """The exit status and the last line of what it said."""
        code = self.process.wait(PATIENCE)
        said = [line for line in self.output.read_text(errors="replace").splitlines() if line.strip()]
        return code, said[-1] if said else ""

    def left(self) -> list[str]:
        """What it leaves behind: processes, files in /dev/shm and TMPDIR, halves of files in the run folder."""
        found = [f"process {pid}" for pid in self.processes()]
        maps = b""
        for entry in Path("/proc").glob("[0-9]*/maps"):
            with suppress(OSError):
                maps += entry.read_bytes()
        new = set(os.listdir(SHM)) - self.shared if SHM.exists() else set()
        found += [f"/dev/shm/{name}" for name in sorted(new) if name.encode() not in maps]  # not another launch's
        found += [f"TMPDIR/{path.relative_to(self.tmp)}" for path in sorted(self.tmp.iterdir())]
        return found + [str(path.relative_to(self.run)) for path in self.run.rglob(".*.part")]


def _hears() -> None:
    """Hear Ctrl-C also where these tests were started behind a shell's `&`, which ignores it for all that it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


Act = Callable[[Launch], None]


def terminal(launch: Launch, number: int = signal.SIGINT) -> None:
    """As a terminal does it: to the whole group."""
    os.killpg(launch.process.pid, number)


def twice(launch: Launch) -> None:
    """The second one while a rank does not answer: it cannot be asked."""
    os.kill(launch.rank(1), signal.SIGSTOP)
    terminal(launch)
    while b"a second time" not in launch.output.read_bytes():
        time.sleep(0.02)
    terminal(launch)


def pause(launch: Launch) -> None:
    """A rank stands still, the others wait for it; then it goes on, and so does the run to its end."""
    pid = launch.rank(2)
    os.kill(pid, signal.SIGSTOP)
    time.sleep(0.5)
    have = len(lines(launch.run))
    time.sleep(0.5)
    assert len(lines(launch.run)) <= have + 1, "the run goes on without a rank that stands still"
    os.kill(pid, signal.SIGCONT)


def mpirun(number: int) -> Act:
    return lambda launch: os.kill(launch.mpirun(), number)


def rank(who: int, number: int) -> Act:
    return lambda launch: os.kill(launch.rank(who), number)


KEPT = "which is kept in .*--resume"
LOST = "the last checkpoint counts: fedmpi train .* --resume"
# What is done, the exit statuses that are right, and what the last line says.
CASES: dict[str, tuple[Act, set[int], str]] = {
    "Ctrl-C": (terminal, {75}, KEPT),
    "Ctrl-C twice": (twice, {130}, LOST),
    "USR1": (lambda launch: os.kill(launch.process.pid, signal.SIGUSR1), {75}, KEPT),
    "TERM of mpirun": (mpirun(signal.SIGTERM), {75, 143}, "--resume"),
    "KILL of mpirun": (mpirun(signal.SIGKILL), {137}, f"mpirun was killed \\(137: out of memory\\?\\); {LOST}"),
    **{
        f"{name} of rank {who}": (rank(who, number), {128 + number}, f"rank {who} was killed \\({128 + number}.*{LOST}")
        for name, number in (("TERM", signal.SIGTERM), ("KILL", signal.SIGKILL))
        for who in range(RANKS)
    },
    "STOP and CONT of rank 2": (pause, {0}, ""),
}


@dataclass
class Seen:
    case: str
    status: int
    last: str
    left: list[str]
    same: bool
    right: bool


def run(cases: dict[str, tuple[Act, set[int], str]], folder: Path) -> Iterator[Seen]:
    """Each case once: the launch, the interrupt, its end, and the same run gone on with, in this process.

    What is interrupted would go on for a minute, so that no interrupt comes too late; a few rounds more end it.
    """
    for place, (case, (act, codes, words)) in enumerate(cases.items()):
        job = make(folder / str(place), rounds=300 if codes == {0} else 5000)
        with Launch(job, folder / f"run-{place}") as launch:
            launch.rounds(10)
            act(launch)
            code, last = launch.end()
            left = launch.left()
        table, whole = tomllib.loads(job.read_text()), folder / f"whole-{place}"
        done = (launch.run / "DONE").exists()
        if not done:
            table["rounds"] = lines(launch.run)[-1]["round"] + 10
            fedmpi.train(table, out=launch.run, resume=True)
        fedmpi.train(table, out=whole)
        same = bits(launch.run) == bits(whole) and lines(launch.run) == lines(whole)
        right = same and code in codes and done == (code == 0) and re.search(words, last) is not None
        yield Seen(case, code, last, left, same, right and not [name for name in left if ".part" in name])


def main() -> int:
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        print("| interrupt | status | last line | left behind | --resume: the same bits |")
        print("|---|---|---|---|---|", flush=True)
        chosen = {name: CASES[name] for name in sys.argv[1:] or CASES}
        for seen in run(chosen, Path(folder)):
            wrong += not seen.right
            last = seen.last.replace(folder, "").replace("|", "/")
            same = "yes" if seen.same else "NO"
            print(
                f"| {seen.case}{'' if seen.right else ' (WRONG)'} | {seen.status} | {last} | "
                f"{', '.join(seen.left) or 'nothing'} | {same} |",
                flush=True,
            )
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
