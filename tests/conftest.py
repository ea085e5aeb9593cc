"""A rank whose test fails says so and aborts its launch, so that no other rank waits for it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import fedmpi
from fedmpi.launch.local import Mpirun, find_mpirun
from tests import blobs

RANK = next((int(os.environ[name]) for name in ("OMPI_COMM_WORLD_RANK", "PMI_RANK") if name in os.environ), 0)
SIZE = next((int(os.environ[name]) for name in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE") if name in os.environ), 1)


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    if RANK:  # one rank's progress is enough to read
        config.get_terminal_writer()._file = open(os.devnull, "w")  # noqa: SIM115  (as long as the session)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Iterator[None]:
    report = yield
    if report.failed and SIZE > 1:
        sys.__stderr__.write(f"\nrank {RANK} of {SIZE} failed {item.nodeid} ({report.when})\n{report.longreprtext}\n")
        sys.__stderr__.flush()
        from mpi4py import MPI

        MPI.COMM_WORLD.Abort(1)
    return report


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """One compute thread a rank: the machine may have no more, and torch's sums depend on it."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def mpirun() -> Mpirun:
    """The machine's own; where there is none, the tests that start real ranks are skipped, and say so."""
    try:
        return find_mpirun()
    except fedmpi.Refused as refused:
        pytest.skip(str(refused))


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "blobs"
    fedmpi.write_shards(folder, blobs.blobs(), holdout=0.25, files=2, classes=("a", "b", "c"))
    return folder


@pytest.fixture
def job(shards: Path) -> dict[str, Any]:
    return blobs.job(shards)
