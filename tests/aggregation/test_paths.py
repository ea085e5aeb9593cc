"""One weighted reduction: the same bits at any number of ranks, whoever serves whom."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from fedmpi.aggregation import ReducePath, pipeline
from fedmpi.comm import Solo
from fedmpi.flow import Layout
from fedmpi.job import Aggregation
from tests.crossings import add, passage_of
from tests.fake import Fake, launch

FIXED = ["fixed-point"]
CLIPPED = [{"name": "clip", "bound": 2.0}, "fixed-point"]
NARROW = [{"name": "clip", "bound": 2.0}, {"name": "fixed-point", "bits": 32}]
CPU = torch.device("cpu")
CLIENTS, CAP = 11, 40


def made(comm: Any, layout: Layout, stages: list[Any], stage: bool = False) -> ReducePath:
    chain = pipeline(Aggregation.model_validate({"stages": stages}), CAP, CLIENTS)
    return ReducePath(comm, chain, layout, CPU, stage)


def layout_of(dtype: torch.dtype, size: int = 50) -> Layout:
    return Layout(size, slice(0, size - 8), dtype, 2, ("examples", "uniform", "none"), ("a",))


def update(client: int, layout: Layout) -> torch.Tensor:
    random = np.random.default_rng(client)
    return torch.from_numpy(random.normal(size=layout.width) * 10.0 ** random.integers(-5, 1)).to(layout.dtype)


def examples(client: int) -> int:
    return 3 * client + 1


def crossing(
    size: int, stages: list[Any], dtype: torch.dtype, home_serves: bool = True, stage: bool = False, rounds: int = 1
) -> list[Any]:
    """What each rank gets of a round whose clients are dealt unevenly: rank r serves what is left of `r` in thirds."""
    layout = layout_of(dtype)

    def work(comm: Fake) -> Any:
        path = made(comm, layout, stages, stage)
        ranks = list(range(size)) if home_serves or size == 1 else list(range(1, size))
        for _ in range(rounds):
            passage = passage_of(layout, [examples(client) for client in range(CLIENTS)])
            path.begin(passage)
            for client in range(CLIENTS):
                if ranks[int(client**0.5) % len(ranks)] == comm.me:  # 1, 3, 5, 2 clients; none beyond the fourth
                    add(path, update(client, layout), passage, client)
            tally = torch.full((3,), float(comm.me + 1), dtype=torch.float64)
            got = path.collect(passage, tally)
        if got is None:
            return None
        planes, sums = got
        return planes.clone(), sums, tally

    return launch(size, work)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("stages", [FIXED, CLIPPED, NARROW], ids=["64", "clip", "32"])
def test_fixed_point_gives_the_same_bits_at_any_number_of_ranks(stages: list[Any], dtype: torch.dtype) -> None:
    [(planes, sums, _)] = crossing(1, stages, dtype)
    assert planes.any()
    for size in (2, 3, 4, 6):
        for home_serves in (True, False):
            got, *others = crossing(size, stages, dtype, home_serves)
            assert torch.equal(got[0], planes), f"{size} ranks"
            assert got[1] == sums
            assert others == [None] * (size - 1)


def test_a_float_sum_does_not_but_is_close() -> None:
    seen = [crossing(size, [], torch.float32)[0][0] for size in (1, 2, 3, 4, 6)]
    assert any(not torch.equal(one, seen[0]) for one in seen)
    for one in seen:
        torch.testing.assert_close(one, seen[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("stages", [[], FIXED, NARROW], ids=["float", "64", "32"])
@pytest.mark.parametrize("size", [1, 3])
def test_staging_changes_no_bit(stages: list[Any], size: int) -> None:
    straight, staged = (crossing(size, stages, torch.float32, stage=stage)[0] for stage in (False, True))
    assert torch.equal(straight[0], staged[0])
    assert straight[1] == staged[1]


@pytest.mark.parametrize("stage", [False, True])
@pytest.mark.parametrize("stages", [[], FIXED], ids=["float", "fixed"])
def test_a_round_leaves_nothing_for_the_next(stages: list[Any], stage: bool) -> None:
    once, twice = (crossing(3, stages, torch.float32, stage=stage, rounds=rounds)[0] for rounds in (1, 2))
    assert torch.equal(once[0], twice[0])
    assert once[1] == twice[1]


def test_the_tally_is_summed_beside_the_wire_in_one_reduction() -> None:
    assert crossing(4, FIXED, torch.float32)[0][2].tolist() == [10.0, 10.0, 10.0]
    layout = layout_of(torch.float32)

    def work(comm: Fake) -> list[str]:
        path = made(comm, layout, FIXED)
        path.begin(passage_of(layout, [1, 1]))
        path.collect(passage_of(layout, [1, 1]), torch.zeros(2))
        return comm.traffic

    assert launch(3, work) == [["reduce"]] * 3


def test_a_round_without_a_client_is_a_mean_of_zero() -> None:
    layout = layout_of(torch.float32)

    def work(comm: Fake) -> Any:
        path = made(comm, layout, FIXED)
        path.begin(passage_of(layout, []))
        return path.collect(passage_of(layout, []), torch.zeros(1))

    planes, sums = launch(3, work)[0]
    assert not planes.any()
    assert sums == {"weight": 0.0, "clients": 0.0, "a": 0.0}


@pytest.mark.parametrize(("stages", "width"), [([], 4), (FIXED, 8), (NARROW, 4)], ids=["float", "64", "32"])
def test_bytes_are_what_travels(stages: list[Any], width: int) -> None:
    layout = layout_of(torch.float32)
    path = made(Solo(), layout, stages)
    assert path.bytes == layout.width * width


def test_an_unfit_client_is_as_if_it_had_not_come() -> None:
    layout = layout_of(torch.float32)
    passage = passage_of(layout, [5, 5, 5])
    totals = []
    for bad in (True, False):
        path = made(Solo(), layout, FIXED)
        path.begin(passage)
        for client in range(3):
            wire = update(client, layout)
            if client == 1:
                if not bad:
                    continue
                wire[7] = float("nan")
                assert add(path, wire, passage, client) == [1, 7]
            else:
                assert add(path, wire, passage, client) == [0, 0]
        totals.append(path.collect(passage, torch.zeros(1)))
    assert totals[0] is not None
    assert totals[1] is not None
    assert torch.equal(totals[0][0], totals[1][0])
    assert totals[0][1] == totals[1][1]
    assert totals[0][1]["clients"] == 2.0


def test_sums_are_named_and_weighted_as_the_layout_says() -> None:
    layout = dataclasses.replace(
        layout_of(torch.float64), weights=("none", "none", "uniform", "examples", "none"), sums=("u", "e", "n")
    )
    path = made(Solo(), layout, [])
    passage = passage_of(layout, [10, 30])
    path.begin(passage)
    for client, value in enumerate([1.0, 4.0]):
        wire = torch.zeros(layout.width, dtype=torch.float64)
        layout.tail(wire)[2:] = value
        add(path, wire, passage, client)
    result = path.collect(passage, torch.zeros(1))
    assert result is not None
    assert result[1] == pytest.approx({"weight": 1.0, "clients": 2.0, "u": 2.5, "e": 3.25, "n": 5.0})
