"""A node's cores are dealt out so that no core has two threads while another has none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmpi import cores
from fedmpi.comm import topology
from fedmpi.comm.topology import NodePlace, mask, share, together
from fedmpi.flow import Refused

lawful = settings(derandomize=True, database=None, deadline=None, max_examples=80)
masks = st.lists(st.frozensets(st.integers(0, 15), min_size=1), min_size=1, max_size=12)


@lawful
@given(masks=masks, quota=st.integers(1, 20))
def test_threads_never_outnumber_the_node_s_cores_nor_a_rank_s_own(masks: list[frozenset[int]], quota: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cores, "_quotas", lambda *given: iter([quota]))
        threads = [share(masks, mine) for mine in masks]
        most = together(masks)
    assert most == min(len(frozenset().union(*masks)), quota)
    assert all(one >= 1 for one in threads)
    assert sum(threads) <= max(most, len(masks))
    assert all(one <= len(mine) for one, mine in zip(threads, masks, strict=True))


@pytest.mark.parametrize(
    ("wide", "local_size", "quota", "threads"), [(8, 1, 8, 8), (8, 3, 8, 2), (8, 16, 8, 1), (8, 2, 4, 2), (1, 1, 1, 1)]
)
def test_ranks_that_may_use_every_core_share_them_evenly(wide: int, local_size: int, quota: int, threads: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cores, "_quotas", lambda *given: iter([quota]))
        whole = frozenset(range(wide))
        assert share([whole] * local_size, whole) == threads


def test_bound_ranks_use_the_core_that_they_are_bound_to() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cores, "_quotas", lambda *given: iter([8]))
        assert [share([frozenset({core}) for core in range(4)], frozenset({core})) for core in range(4)] == [1] * 4


def test_the_mask_is_not_empty() -> None:
    assert mask()


def test_without_a_gpu_auto_is_the_cpu_and_cuda_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert NodePlace().device("auto") == NodePlace().device("cpu") == torch.device("cpu")
    with pytest.raises(Refused, match=r'device: "cuda" given.*"auto" or "cpu"'):
        NodePlace().device("cuda")


@pytest.mark.parametrize(("local_rank", "gpus", "index"), [(0, 4, 0), (3, 4, 3), (5, 4, 1), (2, 1, 0)])
def test_a_rank_s_gpu_follows_its_local_rank(
    local_rank: int, gpus: int, index: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    for wanted in ("auto", "cuda"):
        assert NodePlace(local_rank=local_rank, local_size=8).device(wanted) == torch.device("cuda", index)
    assert NodePlace(local_rank=local_rank, local_size=8).device("cpu") == torch.device("cpu")


def machine(folder: Path, domains: list[str], siblings: list[str]) -> Path:
    """The kernel's files about a node: cores of each memory domain, and those that are threads of one core."""
    for number, listed in enumerate(domains):
        (folder / "node" / f"node{number}").mkdir(parents=True)
        (folder / "node" / f"node{number}" / "cpulist").write_text(f"{listed}\n")
    for pair in siblings:
        for core in topology._cores(file(folder / "list", pair)):
            (folder / "cpu" / f"cpu{core}" / "topology").mkdir(parents=True)
            (folder / "cpu" / f"cpu{core}" / "topology" / "thread_siblings_list").write_text(pair)
    return folder


def file(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_whole_cores_come_first_and_a_memory_domain_before_the_next(tmp_path: Path) -> None:
    system = machine(tmp_path, ["0-1,4-5,8-9", "2-3,6-7,10-11"], [f"{core},{core + 6}" for core in range(6)])
    assert topology.by_domain(range(12), system) == [0, 1, 4, 5, 2, 3, 8, 9, 6, 7, 10, 11]
    assert topology.by_domain({11, 3, 2}, system) == [2, 3, 11]
    assert topology.by_domain({3, 1, 2}, tmp_path / "nothing") == [1, 2, 3]


@pytest.mark.parametrize(
    ("place", "wanted", "batch", "bound"),
    [
        (NodePlace(0, 2, 2), "on", False, [0, 1]),
        (NodePlace(1, 2, 2), "auto", True, [2, 3]),
        (NodePlace(1, 2, 2), "auto", False, []),
        (NodePlace(1, 2, 2), "off", True, []),
        (NodePlace(1, 2, 2, crowded=True), "on", True, []),
        (NodePlace(1, 2, 2, bound=True), "on", True, []),
    ],
)
def test_ranks_bind_themselves_to_cores_of_their_own(
    place: NodePlace, wanted: str, batch: bool, bound: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[list[int]] = []
    monkeypatch.setattr(topology, "mask", lambda: frozenset(range(4)))
    monkeypatch.setattr(topology, "by_domain", sorted)
    monkeypatch.setattr(topology.os, "sched_setaffinity", lambda task, cores: calls.append(cores))
    assert place.bind(wanted, {"SLURM_JOB_ID": "7"} if batch else {}) == bound
    assert all(cores == bound for cores in calls)
    assert bool(calls) == bool(bound)


def test_ranks_that_fit_have_disjoint_cores() -> None:
    for ranks, threads in ((1, 4), (2, 2), (3, 1), (4, 1)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(topology, "mask", lambda: frozenset(range(4)))
            patch.setattr(topology.os, "sched_setaffinity", lambda task, cores: None)
            taken = [core for rank in range(ranks) for core in NodePlace(rank, ranks, threads).bind("on", {})]
        assert len(taken) == len(set(taken)) == ranks * threads
