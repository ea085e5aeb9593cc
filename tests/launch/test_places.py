"""Places: every rank has one node, and shares never add up to more cores than there are, beyond one each."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from fedmpi.cores import cores
from fedmpi.launch.places import nodes


@settings(derandomize=True, database=None, deadline=None, max_examples=100)
@given(st.integers(1, 200), st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(1, 64))
def test_every_rank_has_one_node(ranks: int, takes: list[int], holds: int) -> None:
    environ = {
        "SLURM_TASKS_PER_NODE": ",".join(str(take) for take in takes),
        "SLURM_JOB_CPUS_PER_NODE": f"{holds}(x{len(takes)})",
    }
    placed = nodes(ranks, environ)
    assert [rank for node in placed for rank in node.ranks] == list(range(ranks))
    assert all(node.share >= 1 for node in placed)
    assert all(node.share * len(node.ranks) <= max(node.cores, len(node.ranks)) for node in placed)


def test_this_machine() -> None:
    (node,) = nodes(3, {})
    assert (node.ranks, node.cores) == (range(3), cores())


def test_an_allocation_is_filled_node_by_node() -> None:
    environ = {"SLURM_TASKS_PER_NODE": "4(x2),3", "SLURM_JOB_CPUS_PER_NODE": "16(x2),8"}
    placed = nodes(11, environ)
    assert [(node.name, node.ranks, node.cores, node.share) for node in placed] == [
        ("node 1 of 3", range(4), 16, 4),
        ("node 2 of 3", range(4, 8), 16, 4),
        ("node 3 of 3", range(8, 11), 8, 2),
    ]
    assert [node.ranks for node in nodes(3, environ)] == [range(3)]
    assert nodes(13, environ)[-1].ranks == range(8, 13)
