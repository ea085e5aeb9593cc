"""Cores: the smallest of the affinity mask and of every quota above, whole, at least one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmpi.cores import OURS, cores, threads


def machine(root: Path, line: str, files: dict[str, str]) -> tuple[Path, Path]:
    """A `/proc/self/cgroup` with one line, and a cgroup tree with these files."""
    proc = root / "proc"
    proc.write_text(f"{line}\n", encoding="ascii")
    for name, text in files.items():
        file = root / "tree" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n", encoding="ascii")
    return proc, root / "tree"


quotas = st.none() | st.integers(1_000, 3_200_000)


@settings(derandomize=True, database=None, deadline=None, max_examples=60)
@given(allowed=st.integers(1, 256), levels=st.lists(quotas, min_size=1, max_size=4))
def test_smallest_of_mask_and_quotas(
    tmp_path_factory: pytest.TempPathFactory, allowed: int, levels: list[int | None]
) -> None:
    folders = ["/".join(f"level{depth}" for depth in range(index + 1)) for index in range(len(levels))]
    new = {f"{folder}/cpu.max": f"{quota or 'max'} 100000" for folder, quota in zip(folders, levels, strict=True)}
    old = {f"cpu/{folder}/cpu.cfs_quota_us": str(quota or -1) for folder, quota in zip(folders, levels, strict=True)}
    old |= {f"cpu/{folder}/cpu.cfs_period_us": "100000" for folder in folders}
    least = min([allowed * 100_000, *(quota for quota in levels if quota is not None)])
    expected = max(1, least // 100_000)
    for line, files in ((f"0::/{folders[-1]}", new), (f"4:cpu,cpuacct:/{folders[-1]}", old)):
        proc, root = machine(tmp_path_factory.mktemp("cgroup"), line, files)
        assert cores(allowed, proc, root) == expected


@pytest.mark.parametrize(
    ("line", "files"),
    [
        ("0::/", {"cpu.max": "250000 100000"}),  # a container with its own view
        ("0::/../..", {"cpu.max": "250000 100000"}),  # a process that was moved out of it
        # A container that sees the host's path, but only its own part of the tree.
        (
            "3:cpu,cpuacct:/box/0f3c",
            {"cpu,cpuacct/cpu.cfs_quota_us": "250000", "cpu,cpuacct/cpu.cfs_period_us": "100000"},
        ),
        ("3:cpu:/", {"cpu/cpu.cfs_quota_us": "250000", "cpu/cpu.cfs_period_us": "100000"}),
    ],
)
def test_quota_of_two_and_a_half_is_two(tmp_path: Path, line: str, files: dict[str, str]) -> None:
    assert cores(8, *machine(tmp_path, line, files)) == 2


@pytest.mark.parametrize("text", ["", "max", "max 100000", "nonsense here", "-1 100000", "100000 0"])
def test_no_limit_that_can_be_read_is_no_limit(tmp_path: Path, text: str) -> None:
    assert cores(8, *machine(tmp_path, "0::/", {"cpu.max": text})) == 8


def test_no_cgroups_at_all(tmp_path: Path) -> None:
    assert cores(8, tmp_path / "none", tmp_path / "neither") == 8


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system has no affinity masks")
def test_this_process() -> None:
    assert 1 <= cores() <= len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("environ", "number"),
    [
        ({}, None),
        ({"OMP_NUM_THREADS": "4"}, 4),
        ({"OMP_NUM_THREADS": " 8,2"}, 8),
        ({"OMP_NUM_THREADS": "many"}, None),
        ({"OMP_NUM_THREADS": "0"}, None),
        ({"OMP_NUM_THREADS": ""}, None),
        ({"OMP_NUM_THREADS": "1", OURS: "1"}, None),
    ],
)
def test_the_threads_that_somebody_asks_for(environ: dict[str, str], number: int | None) -> None:
    assert threads(environ) == number


def test_a_launch_says_whose_the_threads_are() -> None:
    from fedmpi.launch import environment

    assert threads(environment(3, None, {})) is None
    assert environment(3, None, {})["OMP_NUM_THREADS"] == "1"
    assert threads(environment(3, None, {"OMP_NUM_THREADS": "6"})) == 6
    inner = environment(3, None, environment(3, None, {}))  # a launch within one of ours
    assert threads(inner) is None
