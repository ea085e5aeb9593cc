"""The command as a person starts it: a process, its output and its exit status."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import fedmpi
from fedmpi import cli

JOB = """
name = "toy"
seed = 1
rounds = 3
[data]
shards = "{shards}"
[cohort]
size = 3
[model]
name = "mlp"
hidden = [8]
[local]
lr = 0.1
batch = 8
epochs = 1
"""


@dataclass
class Said:
    code: int
    out: str
    err: str

    @property
    def all(self) -> str:
        return self.out + self.err


Command = Callable[..., Said]


def command(words: Sequence[str], cwd: Path, seconds: float = 120, **environment: str) -> Said:
    """Run one command; a hang is a failure."""
    path = os.pathsep.join([str(cwd), str(Path(__file__).parents[2])])
    done = subprocess.run(
        list(words),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=seconds,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **environment},
    )
    return Said(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """`inside("train", ...)`: the same in this process, which has imported torch already."""
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> Said:
        code = cli.main(words, lambda: None)
        return Said(code, *capfd.readouterr())

    return call


@pytest.fixture
def run(tmp_path: Path) -> Command:
    """`run("train", ...)`: fedmpi as a process, in a folder of its own."""
    return lambda *words, **environment: command([sys.executable, "-m", "fedmpi", *words], tmp_path, **environment)


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    random = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("cli") / "toy"
    clients = {}
    for client in range(5):
        y = random.integers(0, 3, 30)
        clients[f"c{client}"] = (random.normal(size=(30, 4)).astype(np.float32) + y[:, None], y)
    fedmpi.write_shards(folder, clients, holdout=0.2, classes=("a", "b", "c"))
    return folder


@pytest.fixture
def job(tmp_path: Path, shards: Path) -> Path:
    path = tmp_path / "job.toml"
    path.write_text(JOB.format(shards=shards))
    return path
