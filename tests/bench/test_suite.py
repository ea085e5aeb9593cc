"""The figures of `fedmpi bench`: what they come to, how they are shown, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from fedmpi.bench import shown, suite
from fedmpi.bench.launches import measure
from fedmpi.bench.memory import Peak, pss
from fedmpi.bench.suite import Suite, scaling_default, write
from fedmpi.bench.work import WORK
from fedmpi.flow import Refused
from fedmpi.job import read
from fedmpi.plan import assemble
from fedmpi.rounds.loops import LOOPS
from tests.cli.conftest import Command, job, run, shards

__all__ = ["job", "run", "shards"]  # fixtures

TIMES = {1: 8.0, 2: 8.0, 3: 5.0, 5: 2.5}  # seconds of a round, by ranks


def stub(part: str, ranks: int, launcher: str | None, **spec: Any) -> dict[str, Any]:
    """Figures as a launch would measure them."""
    if part == "collectives":
        rows = [{"bytes": size, "broadcast": size / 1e9, "reduce": size / 5e8} for size in spec["sizes"]]
        machine = {"processor": "P", "cores": 4, "gib": 8, "torch": "2", "python": "3", "fedmpi": "0", "date": "today"}
        return {"collectives": rows, "machine": machine, "hosts": 2}
    if part == "floor":
        return {"seconds": [4.0, 4.0, 100.0]}
    if part == "memory":
        return {"above": [30.0] * ranks, "model": 10.0}
    return {"seconds": [TIMES[ranks]] * 3, "first": 2.0, "bytes": {"down": 300, "up": 100}}


@pytest.fixture
def found(job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(suite, "measure", stub)
    engines = {"traced": '"traced"'}
    told: list[str] = []
    mine = Suite(job, (), 3, engines, 2, 3, (1, 2, 3, 5), tmp_path / "out", None, told.append)
    figures = mine.run(assemble(read(job), loops=LOOPS))
    assert len(told) == 1 + 2 * (1 + len(engines)) + 1 + 2 * 4 + 1
    return figures


def test_rates_ratios_and_efficiency(found: dict[str, Any]) -> None:
    """The job has 3 clients a round."""
    traced = found["engines"]["traced"]
    assert found["floor"] == {"seconds": 4.0, "ranks": 2}
    assert traced["ratio"] == 5 / 4
    assert traced["clients_a_second"] == pytest.approx(3 / 5)
    assert traced["bytes_a_second"] == pytest.approx(2 * 400 / 5)
    assert [row["serving"] for row in found["scaling"]] == [1, 1, 2, 4]
    assert [row["efficiency"] for row in found["scaling"]] == pytest.approx([1, 1, 0.8, 0.8])
    model = 4 * found["parameters"]
    assert {row["bytes"] for row in found["collectives"]} == {model, *suite.SIZES}


def test_every_figure_is_kept_and_shown(found: dict[str, Any], tmp_path: Path) -> None:
    assert json.loads(write(found, tmp_path / "figures").read_text()) == found
    console = Console(width=80, force_terminal=False, record=True)
    console.print(shown.tables(found))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    assert "..." not in text
    assert "\u2026" not in text
    for word in ("traced", "1.25", "80%", "160 B/s", "1 GB/s", "rank 2", "3.0"):
        assert word in text, word
    names = [picture.name for picture in shown.pictures(found)]
    assert names == ["bench-engines", "bench-scaling"]


def test_machines_are_appended_one_below_the_other(found: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "scaling.md"
    shown.append(found, path)
    shown.append({**found, "job": "other"}, path)
    text = path.read_text()
    assert text.startswith("# ")
    assert text.count("# Clients a second") == 1
    assert text.index("## toy") < text.index("## other")
    assert text.count("| 3 | 2 | 5 | 0.6 | 160 | 0.80 |") == 2


def test_a_job_that_ends_too_soon_is_refused(job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        suite, "measure", lambda part, *rest, **spec: {} if part == "round" else stub(part, *rest, **spec)
    )
    mine = Suite(job, (), 3, {"traced": '"traced"'}, 1, 3, (1,), tmp_path, None, lambda step: None)
    with pytest.raises(Refused, match="ended before it had 3 rounds"):
        mine.run(assemble(read(job), loops=LOOPS))


def test_a_launch_that_fails_says_why_in_our_words(job: Path, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"floor on 1 ranks ended with \d+: .*nothing.toml"):
        measure("floor", 1, None, job=str(tmp_path / "nothing.toml"), set=[], rounds=1)
    with pytest.raises(Refused, match="no-such-launcher cannot be started"):
        measure("floor", 2, "no-such-launcher -n {ranks}", job=str(job), set=[], rounds=1)


@pytest.mark.parametrize(
    ("ranks", "numbers"), [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (9, [1, 2, 3, 5, 9]), (6, [1, 2, 3, 5, 6])]
)
def test_the_numbers_of_ranks_double(ranks: int, numbers: list[int]) -> None:
    assert [*scaling_default(ranks)] == numbers


@pytest.mark.parametrize("name", WORK)
def test_the_works_are_jobs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import dataclasses

    small = dataclasses.replace(WORK[name], clients=10, examples=2, cohort=8)
    path = small.make(name, tmp_path)
    plan = assemble(read(path), loops=LOOPS)
    assert (plan.shards.clients, plan.cohort) == (10, 8)
    before = (tmp_path / f"{name}-shards" / "manifest.json").stat().st_mtime_ns
    small.make(name, tmp_path)
    assert (tmp_path / f"{name}-shards" / "manifest.json").stat().st_mtime_ns == before


def test_memory_is_the_most_while_it_lasted() -> None:
    import numpy as np

    before = pss()
    with Peak() as peak:
        block = np.ones(2**23)  # 64 MiB
        for _ in range(50):
            block += 1
        del block
    assert 48 < peak.most - before < 128


@pytest.mark.slow
def test_the_command(run: Command, job: Path, tmp_path: Path) -> None:
    said = run(
        "bench", str(job), "-n", "3", "--pairs", "1", "--rounds", "2", "--engines", "sequential,batched", "--scaling",
        "1,2", "--append", "scaling.md",
    )  # fmt: skip
    assert said.code == 0, said.all
    found = json.loads((tmp_path / "bench" / "bench.json").read_text())
    assert set(found["engines"]) == {"sequential", "batched"}
    assert [row["ranks"] for row in found["scaling"]] == [1, 2]
    assert all(row["clients_a_second"] > 0 for row in found["scaling"])
    assert len(found["memory"]["above"]) == 3
    assert found["floor"]["ranks"] == 2
    assert "## toy" in (tmp_path / "scaling.md").read_text()
    assert sorted(path.name for path in (tmp_path / "bench").iterdir()) == [
        "bench-engines.png", "bench-scaling.png", "bench.json", "runs",
    ]  # fmt: skip
    assert "figures in bench/bench.json" in said.out
