"""A node's cores are dealt out so that no core has two threads while another has none."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmpi import cores
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
