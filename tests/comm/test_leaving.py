"""A script under mpirun whose rank fails ends the launch, also without `-m mpi4py`, and tells it in few words."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import fedmpi
from fedmpi.launch.local import Mpirun, environment, start
from tests.cli.conftest import Said, command

SCRIPT = """
import sys, threading
from mpi4py import MPI
import fedmpi

job = {"rounds": 2, "data": {"shards": sys.argv[1]}, "model": "linear", "local": {"lr": 0.1, "batch": 0, "steps": 1}}
job |= {"cohort": {"size": 2}}

def told(line):
    if "raise" in sys.argv:
        raise ValueError("of mine")
    if "exit" in sys.argv:
        sys.exit("enough")

def train():
    fedmpi.train(job | ({"rouds": 1} if "wrong" in sys.argv else {}), MPI.COMM_WORLD, on_round=told)

if "thread" in sys.argv:
    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    MPI.COMM_WORLD.Barrier()
else:
    train()
"""


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("leaving") / "toy"
    x = np.arange(24, dtype=np.float32).reshape(12, 2) / 24
    fedmpi.write_shards(folder, dict.fromkeys(("a", "b", "c"), (x, x[:, 0])), task="regression")
    return folder


def script(mpirun: Mpirun, folder: Path, shards: Path, *words: str) -> Said:
    """Three ranks of plain Python; a hang is a failure."""
    (folder / "script.py").write_text(SCRIPT)
    argv = [*start(mpirun, 3), sys.executable, "script.py", str(shards), *words]
    told = {name: value for name, value in environment(3).items() if name.startswith("OMPI")}
    return command(argv, folder, **told)


def test_a_wrong_field_is_one_line_before_the_launcher_s(mpirun: Mpirun, tmp_path: Path, shards: Path) -> None:
    said = script(mpirun, tmp_path, shards, "wrong")
    assert said.code == 2, said.all
    assert "Traceback" not in said.all
    assert said.all.count("rouds") == 1
    assert next(line for line in said.all.splitlines() if line.strip()).startswith("fedmpi: rouds: is not a field")


@pytest.mark.parametrize(
    ("words", "told"), [(["raise"], "ValueError: of mine"), (["exit"], "enough"), (["raise", "thread"], "of mine")]
)
def test_a_callback_that_fails_ends_every_rank(
    mpirun: Mpirun, tmp_path: Path, shards: Path, words: list[str], told: str
) -> None:
    said = script(mpirun, tmp_path, shards, *words)
    assert said.code == 1, said.all
    assert told in said.all
    assert said.all.count("Traceback") == ("raise" in words)
