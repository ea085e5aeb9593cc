"""A timed communicator is the one it times, and tells each collective."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch

from fedmpi.comm import Solo, Timed
from fedmpi.comm.timed import COLLECTIVES
from fedmpi.flow import Comm
from tests.comm.test_collectives import LAWS, hold
from tests.fake import launch


def test_every_collective_is_timed() -> None:
    methods = {name for name, value in vars(Comm).items() if inspect.isfunction(value) and name[0] != "_"}
    assert set(COLLECTIVES) == methods - {"buffer", "fail"}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("size", [1, 3])
def test_the_laws_of_collectives_hold(law: str, size: int) -> None:
    launch(size, lambda comm: hold(Timed(comm, lambda *told: None), law))


def test_each_call_is_told_once_with_its_time() -> None:
    told: list[tuple[str, float, float]] = []
    comm = Timed(Solo(), lambda *parts: told.append(parts))
    assert comm.agree(True)
    assert comm.across is comm
    with pytest.raises(ValueError, match="2 parts"):
        comm.exchange([comm.buffer(1, torch.float32)] * 2)
    assert [name for name, _, _ in told] == ["agree", "exchange"]
    assert all(began <= ended for _, began, ended in told)


@pytest.mark.mpi
@pytest.mark.parametrize("crowded", [False, True])
def test_waits_are_told_where_ranks_sleep(crowded: bool) -> None:
    import dataclasses

    from mpi4py import MPI

    from fedmpi.comm.world import World

    world: Any = World(MPI.COMM_WORLD)
    world.place = dataclasses.replace(world.place, crowded=crowded)
    told: list[str] = []
    comm = Timed(world, lambda name, began, ended: told.append(name))
    comm.agree(True)
    assert told == (["wait", "agree"] if crowded else ["agree"])
    world.mpi.Free()
