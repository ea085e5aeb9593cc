"""Laws of every collective, on one rank, on threads, and over MPI: what each rank gets of what all gave."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fedmpi.comm import Solo
from fedmpi.flow import Refused
from tests.fake import launch

DTYPES = [torch.float32, torch.float64, torch.int8, torch.int32, torch.int64]
SIZES = [0, 1, 5, 100]


def own(rank: int, size: int, dtype: torch.dtype) -> Tensor:
    """Return what a rank gives: small whole numbers, another vector for every rank."""
    random = np.random.default_rng([rank, size])
    return torch.from_numpy(random.integers(-9, 10, size)).to(dtype)


def rows(comm: Any, size: int, dtype: torch.dtype) -> np.ndarray[Any, Any]:
    """Return what all ranks give, `(ranks, size)`, by NumPy."""
    return np.array([own(rank, size, dtype).numpy() for rank in comm.alive]).reshape(len(comm.alive), size)


def reduced_in_place(comm: Any, size: int, dtype: torch.dtype, root: int) -> None:
    mine, other = own(comm.me, size, dtype), torch.ones(3)
    comm.reduce(mine, other, root=root)
    wanted = rows(comm, size, dtype).sum(0) if comm.me == root else own(comm.me, size, dtype).numpy()
    np.testing.assert_array_equal(mine.numpy(), wanted)
    assert other.tolist() == [float(comm.size) if comm.me == root else 1.0] * 3


def reduced_into_another(comm: Any, size: int, dtype: torch.dtype, root: int) -> None:
    mine, landed = own(comm.me, size, dtype), comm.buffer(size, dtype)
    comm.reduce(mine, root=root, into=[mine])  # its own place
    if comm.me == root:
        np.testing.assert_array_equal(mine.numpy(), rows(comm, size, dtype).sum(0))
    mine = own(comm.me, size, dtype)
    for _ in range(2):  # the same words, once more
        landed.fill_(7)
        comm.reduce(mine, root=root, into=[landed])
        np.testing.assert_array_equal(mine.numpy(), own(comm.me, size, dtype).numpy())
        wanted = rows(comm, size, dtype).sum(0) if comm.me == root else np.full(size, 7)
        np.testing.assert_array_equal(landed.numpy(), wanted)


def started(comm: Any, size: int, dtype: torch.dtype, root: int) -> None:
    mine, landed = own(comm.me, size, dtype), comm.buffer(size, dtype)
    pending = comm.start_reduce(mine, root=root, into=[landed])
    pending.wait()
    pending.wait()
    if comm.me == root:
        np.testing.assert_array_equal(landed.numpy(), rows(comm, size, dtype).sum(0))
    pending = comm.start_broadcast(mine, root=root)
    pending.wait()
    pending.wait()
    np.testing.assert_array_equal(mine.numpy(), own(root, size, dtype).numpy())


def broadcast(comm: Any, size: int, dtype: torch.dtype, root: int) -> None:
    mine = own(comm.me, size, dtype)
    comm.broadcast(mine, root=root)
    np.testing.assert_array_equal(mine.numpy(), own(root, size, dtype).numpy())


def known_to_all(comm: Any, size: int, dtype: torch.dtype, root: int) -> None:
    everyone = rows(comm, size, dtype)
    largest, total = own(comm.me, size, dtype), own(comm.me, size, dtype)
    comm.largest(largest)
    np.testing.assert_array_equal(largest.numpy(), everyone.max(0))
    comm.total(total)
    np.testing.assert_array_equal(total.numpy(), everyone.sum(0))
    gathered = comm.gather(own(comm.me, size, dtype))
    assert gathered.dtype == dtype
    np.testing.assert_array_equal(gathered.numpy(), everyone)


def a_nan_is_largest(comm: Any, size: int, dtype: torch.dtype, root: int) -> None:
    values = torch.full((3,), float(comm.me))
    if comm.me == root:
        values[1] = float("nan")
    comm.largest(values)
    assert values[0] == max(comm.alive)
    assert values[1].isnan()


def exchanged(comm: Any, size: int, dtype: torch.dtype, root: int) -> None:
    def part(sender: int, to: int) -> Tensor:
        return own(100 * sender + to, size * (sender + to) % 7, dtype)

    landed = comm.exchange([part(comm.me, to) for to in comm.alive])
    assert len(landed) == comm.size
    for sender, came in zip(comm.alive, landed, strict=True):
        assert came.dtype == dtype
        np.testing.assert_array_equal(came.numpy(), part(sender, comm.me).numpy())
    with pytest.raises(ValueError, match="parts given"):
        comm.exchange([torch.zeros(1)] * (comm.size + 1))


def agreed(comm: Any, size: int, dtype: torch.dtype, root: int) -> None:
    assert comm.agree(True) is True
    assert comm.agree(comm.me != root) is False
    assert comm.agree(False) is False
    comm.settle(None)
    error = Refused("no") if comm.me == root else None
    with pytest.raises(Refused) as raised:
        comm.settle(error)
    assert (raised.value is error) == (comm.me == root)


def grouped(comm: Any, size: int, dtype: torch.dtype, root: int) -> None:
    members = sorted({root, comm.alive[-1]})
    some = comm.group(members)
    assert (some is not None) == (comm.me in members)
    if some is not None:
        assert (some.me, some.alive, some.size) == (comm.me, tuple(members), len(members))
        assert some.home == ((0,) if 0 in members else (members[0],))
        assert some.is_home == (comm.me in some.home)
        mine, landed = own(comm.me, size, dtype), comm.buffer(size, dtype)
        some.reduce(mine, root=members[-1], into=[landed])
        if comm.me == members[-1]:
            np.testing.assert_array_equal(landed.numpy(), rows(some, size, dtype).sum(0))
        some.broadcast(mine, root=members[-1])
        np.testing.assert_array_equal(mine.numpy(), own(members[-1], size, dtype).numpy())
    with pytest.raises(ValueError, match="given; the ranks are"):
        comm.group([99])


def known_of_itself(comm: Any, size: int, dtype: torch.dtype, root: int) -> None:
    assert (len(comm.alive), comm.epoch, comm.home) == (comm.size, 0, (0,))
    assert comm.me in comm.alive
    assert comm.within.alive == (comm.me,)
    assert comm.across.alive == comm.alive
    empty = comm.buffer(size, dtype)
    assert (empty.shape, empty.dtype, bool(empty.any())) == ((size,), dtype, False)


LAWS: dict[str, Callable[[Any, int, torch.dtype, int], None]] = {
    law.__name__: law
    for law in (
        reduced_in_place,
        reduced_into_another,
        started,
        broadcast,
        known_to_all,
        a_nan_is_largest,
        exchanged,
        agreed,
        grouped,
        known_of_itself,
    )
}
every_law = pytest.mark.parametrize("law", LAWS)


def hold(comm: Any, law: str) -> None:
    """Let a law be tried with every type, size and root."""
    for dtype in DTYPES:
        for size in SIZES:
            for root in sorted({0, comm.alive[-1]}):
                LAWS[law](comm, size, dtype, root)


@every_law
def test_on_one_rank(law: str) -> None:
    hold(Solo(), law)


@every_law
@pytest.mark.parametrize("size", [1, 2, 3])
def test_on_threads(law: str, size: int) -> None:
    launch(size, lambda comm: hold(comm, law))


@every_law
@pytest.mark.mpi
@pytest.mark.parametrize("limit", [7, 2**30], ids=["pieces", "whole"])
@pytest.mark.parametrize("crowded", [False, True], ids=["spins", "sleeps"])
@pytest.mark.parametrize("piece", [16, 2**22], ids=["sums of a few", "sums"])
def test_over_mpi(law: str, limit: int, crowded: bool, piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from mpi4py import MPI

    from fedmpi.comm import world as module
    from fedmpi.comm.world import World

    monkeypatch.setattr(module, "PIECE", piece)
    comm = World(MPI.COMM_WORLD, limit)
    comm.place = dataclasses.replace(comm.place, crowded=crowded)
    hold(comm, law)
    comm.mpi.Free()
