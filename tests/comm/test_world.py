"""Collectives over MPI: typed buffers whole or in pieces, and errors that every rank hears of.

Every test is collective: all ranks run it, in the same order.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from fedmpi import cores
from fedmpi.aggregation import ReducePath, pipeline
from fedmpi.comm import NodePlace, wrap
from fedmpi.flow import Layout, Refused
from fedmpi.job import Aggregation
from tests.crossings import add, passage_of

pytestmark = pytest.mark.mpi

DTYPES = [torch.float32, torch.float64, torch.int32, torch.int64]
SIZES = [0, 1, 5, 1000]
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
every_size = pytest.mark.parametrize("size", SIZES)


def world(limit: int = 2**30, crowded: bool | None = None) -> Any:
    """A World over every rank; imported here, since importing MPI starts it."""
    from mpi4py import MPI

    from fedmpi.comm.world import World

    made = World(MPI.COMM_WORLD, limit)
    if crowded is not None:
        made.place = dataclasses.replace(made.place, crowded=crowded)
    return made


@pytest.fixture(params=[False, True], ids=["spins", "sleeps"])
def comm(request: pytest.FixtureRequest) -> Iterator[Any]:
    made = world(crowded=request.param)
    yield made
    made.mpi.Free()


def vector(rank: int, size: int, dtype: torch.dtype) -> torch.Tensor:
    """Whole numbers, so that sums are exact; large ones where the dtype holds them."""
    large = 2**40 if dtype == torch.int64 else 1
    return ((torch.arange(size) % 97 + 1) * (rank + 1) * large).to(dtype)


@every_dtype
@every_size
def test_a_broadcast_is_home_s_on_every_rank(comm: Any, size: int, dtype: torch.dtype) -> None:
    mine = vector(comm.me, size, dtype)
    comm.broadcast(mine)
    assert torch.equal(mine, vector(0, size, dtype))


@every_dtype
@every_size
def test_a_reduction_is_the_sum_at_home_and_leaves_the_others_as_they_were(
    comm: Any, size: int, dtype: torch.dtype
) -> None:
    first, second = vector(comm.me, size, dtype), torch.full((3,), comm.me + 0.5, dtype=torch.float64)
    comm.reduce(first, second)
    if comm.is_home:
        ranks = comm.size * (comm.size + 1) // 2  # 1 + 2 + ...
        assert torch.equal(first, vector(0, size, dtype) * ranks)
        assert second.tolist() == [ranks - comm.size / 2] * 3
    else:
        assert torch.equal(first, vector(comm.me, size, dtype))
        assert second.tolist() == [comm.me + 0.5] * 3


@every_dtype
@pytest.mark.parametrize("limit", [1, 7, 999, 1000, 1001])
def test_pieces_are_the_whole(limit: int, dtype: torch.dtype) -> None:
    pieces, whole = world(limit), world()
    one, other = vector(pieces.me, 1000, dtype), vector(pieces.me, 1000, dtype)
    pieces.reduce(one)
    whole.reduce(other)
    assert torch.equal(one, other)
    one, other = vector(pieces.me, 1000, dtype), vector(pieces.me, 1000, dtype)
    pieces.broadcast(one)
    whole.broadcast(other)
    assert torch.equal(one, other)
    pieces.mpi.Free()
    whole.mpi.Free()


def test_the_bits_of_a_header_arrive_between_floats(comm: Any) -> None:
    """A NaN's payload and a subnormal are words of a header that rides behind the planes."""
    words = np.array([1, 2**63 - 1, 0x7FF8000000000123, 0xFFF0000000000001 - 2**64, -1], dtype=np.int64)
    sent = torch.from_numpy(words if comm.is_home else np.zeros_like(words))
    for kind in (torch.float32, torch.float64):
        comm.broadcast(sent.view(kind))
        assert sent.numpy().tolist() == words.tolist()


def test_a_view_of_a_larger_vector_travels_alone(comm: Any) -> None:
    whole = torch.full((10,), float(comm.me))
    comm.broadcast(whole[2:6])
    assert whole.tolist() == [comm.me] * 2 + [0.0] * 4 + [comm.me] * 4


def test_ranks_know_who_they_are(comm: Any) -> None:
    assert (comm.me, comm.size) == (comm.mpi.Get_rank(), comm.mpi.Get_size())
    assert comm.is_home == comm.is_scribe == (comm.me == 0)
    assert comm.library


def test_settling_on_nothing_goes_on(comm: Any) -> None:
    for _ in range(3):
        comm.settle(None)


@pytest.mark.parametrize("who", ["first", "last", "all", "all but home"])
@pytest.mark.parametrize("code", [1, 2])
def test_the_lowest_rank_with_an_error_tells_it_and_the_others_leave(comm: Any, who: str, code: int) -> None:
    troubled = {
        "first": [0],
        "last": [comm.size - 1],
        "all": list(range(comm.size)),
        "all but home": list(range(1, comm.size)) or [0],
    }[who]
    mine = None
    if comm.me in troubled:
        mine = Refused(f"rank {comm.me} cannot")
        mine.code = code
    with pytest.raises(Refused) as raised:
        comm.settle(mine)
    assert raised.value.code == code
    if comm.me == troubled[0]:
        assert raised.value is mine
        assert raised.value.tells
    else:
        assert type(raised.value).__name__ == "Elsewhere"
        assert f"rank {troubled[0]}" in str(raised.value)
        assert raised.value.tells is False
    comm.settle(None)  # and the communicator still serves


def test_the_code_is_that_of_the_error_told(comm: Any) -> None:
    mine = Refused("no")
    mine.code = comm.me + 1
    with pytest.raises(Refused) as raised:
        comm.settle(mine)
    assert raised.value.code == 1


def test_a_rank_alone_with_its_failure_raises_it() -> None:
    from mpi4py import MPI

    from fedmpi.comm.world import World

    error = Refused("the disk is full")
    alone = World(MPI.COMM_SELF)
    with pytest.raises(Refused) as raised:
        alone.fail(error)
    assert raised.value is error
    alone.mpi.Free()


def test_places_are_seats_of_a_node_and_share_its_cores() -> None:
    from mpi4py import MPI

    made = world()
    everyone: list[tuple[str, NodePlace]] = made.mpi.allgather((MPI.Get_processor_name(), made.place))
    here = [place for node, place in everyone if node == MPI.Get_processor_name()]
    assert sorted(place.local_rank for place in here) == list(range(len(here)))
    assert {place.local_size for place in here} == {len(here)}
    assert len({place.crowded for _, place in everyone}) == 1
    assert all(place.threads >= 1 for place in here)
    if not made.place.crowded and cores.cores() >= len(here):
        assert sum(place.threads for place in here) <= (os.cpu_count() or 1)
    made.mpi.Free()


def test_ranks_that_outnumber_a_container_s_quota_are_crowded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quota of one core is one core, however many the mask shows."""
    monkeypatch.setattr(cores, "_quotas", lambda *given: iter([1.0]))
    made = world()
    assert made.place.threads == 1
    assert made.place.crowded == (made.place.local_size > 1)
    made.mpi.Free()


def test_wrap_makes_a_world_of_mpi4py_s_communicator() -> None:
    from mpi4py import MPI

    from fedmpi.comm.world import World

    made = wrap(MPI.COMM_WORLD)
    assert isinstance(made, World)
    assert wrap(made) is made
    made.mpi.Free()


@pytest.mark.parametrize("stages", [["fixed-point"], [{"name": "clip", "bound": 1.0}, "fixed-point"]], ids=str)
def test_a_fixed_point_mean_has_the_bits_of_one_rank_alone(comm: Any, stages: list[Any]) -> None:
    """Clients dealt in turn; home serves none where there are others."""
    layout = Layout(300, slice(0, 280), torch.float32)
    chain = pipeline(Aggregation.model_validate({"stages": stages}), 40, 9)

    def crossed(over: Any, mine: list[int]) -> Any:
        path = ReducePath(over, chain, layout, torch.device("cpu"))
        passage = passage_of(layout, [5 * client + 1 for client in range(9)])
        path.begin(passage)
        for client in mine:
            wire = torch.from_numpy(np.random.default_rng(client).normal(size=layout.width)).float()
            add(path, wire, passage, client)
        return path.collect(passage, torch.zeros(1, dtype=torch.float64))

    serving = range(1, comm.size) if comm.size > 1 else range(1)
    mine = [client for client in range(9) if serving[client % len(serving)] == comm.me]
    got = crossed(comm, mine)
    if comm.is_home:
        alone = crossed(wrap(None), list(range(9)))
        assert torch.equal(got[0], alone[0])
        assert got[1] == alone[1]
    else:
        assert got is None
