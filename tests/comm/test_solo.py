"""One rank alone: collectives that change nothing, and what `wrap` makes of a communicator."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from fedmpi.comm import NodePlace, Solo, wrap
from fedmpi.flow import Comm, Refused
from tests.fake import Fake, Hub


def test_collectives_are_already_done() -> None:
    comm: Comm = Solo()
    one, two = torch.arange(4.0), torch.tensor([7])
    comm.broadcast(one)
    comm.reduce(one, two)
    comm.settle(None)
    assert one.tolist() == [0, 1, 2, 3]
    assert two.tolist() == [7]


def test_it_is_home_and_scribe() -> None:
    comm = Solo()
    assert (comm.me, comm.size, comm.is_home, comm.is_scribe) == (0, 1, True, True)
    assert isinstance(comm.place, NodePlace)
    assert comm.place.threads >= 1
    assert not comm.place.crowded


@pytest.mark.parametrize("say", ["settle", "fail"])
def test_an_error_is_its_own(say: str) -> None:
    error = Refused("the disk is full")
    with pytest.raises(Refused) as raised:
        getattr(Solo(), say)(error)
    assert raised.value is error


def test_wrap_takes_nothing_and_what_speaks_already() -> None:
    assert isinstance(wrap(None), Solo)
    fake = Fake(Hub(1), 0)
    assert wrap(fake) is fake


def test_one_rank_alone_needs_no_mpi() -> None:
    code = "import sys, fedmpi.comm; fedmpi.comm.wrap(None); sys.exit('mpi4py' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=120, check=False).returncode == 0
