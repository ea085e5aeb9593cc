"""Groups of runs: seeds are drawn as one, and names tell groups apart."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmpi.report.groups import Group, differences, grouped
from fedmpi.report.runs import RunRecord, read_run
from tests.report.test_runs import job, journal, keep


def test_runs_that_differ_in_their_seed_alone_are_one(tmp_path: Path) -> None:
    tables = [
        job(seed=1, name="avg-s1"),
        job(seed=2, name="avg-s2", run={"ranks": 5}),
        job(seed=1, name="prox", strategy={"name": "fedprox"}),
        job(seed=2, name="prox", strategy={"name": "fedprox"}),
        job(seed=2, name="prox", strategy={"name": "fedprox"}),  # a seed run twice is no third seed
        job(seed=1, name="avg", local__lr=0.2),
    ]
    runs = [read_run(keep(tmp_path / f"r{place}", journal(3, place), table)) for place, table in enumerate(tables)]
    groups = grouped(runs)
    expected = ["avg, local.lr 0.1, 2 seeds", "prox (r2), 2 seeds", "prox (r4)", "avg, local.lr 0.2"]
    assert [group.label for group in groups] == expected
    assert [len(group.runs) for group in groups] == [2, 2, 1, 1]
    assert [run for group in groups for run in group.runs] == runs


@settings(derandomize=True, database=None, deadline=None, max_examples=60)
@given(st.lists(st.dictionaries(st.integers(1, 9), st.floats(0, 1), min_size=1), min_size=1, max_size=4))
def test_a_curve_of_seeds_is_their_mean_and_range(each: list[dict[int, float]]) -> None:
    runs = []
    for values in each:
        lines = [{"round": at, "train_loss": values[at]} for at in sorted(values)]
        runs.append(RunRecord(Path("x"), "", {}, lines, datetime(2026, 1, 1), {}))
    curve = Group("x", runs).curve("train_loss")
    common = [at for at in range(1, 10) if all(at in values for values in each)]
    if common:
        assert curve.x.tolist() == common
        told = [[values[at] for values in each] for at in common]
        assert curve.y.tolist() == pytest.approx([sum(row) / len(row) for row in told])
        if len(each) > 1:
            assert np.array_equal(curve.low, [min(row) for row in told])
            assert np.array_equal(curve.high, [max(row) for row in told])
    else:
        assert curve.x.tolist() == sorted({at for values in each for at in values})


@pytest.mark.parametrize(
    ("folders", "fields", "labels"),
    [
        (["a", "b"], [{"name": "x"}, {"name": "y", "local__lr": 0.2}], ["x", "y"]),
        (["a", "b"], [{}, {"local__lr": 0.2}], ["digits, local.lr 0.1", "digits, local.lr 0.2"]),
        (
            ["a", "b"],
            [{}, {"strategy": {"name": "fedprox", "mu": 0.1}}],
            ["digits, strategy fedavg", "digits, strategy fedprox, strategy.mu 0.1"],
        ),
        (["a", "b"], [{}, {"server": {"lr": 0.5}}], ["digits", "digits, server.lr 0.5"]),
        (["a", "b"], [{}, {"local__lr": 0.2, "local__batch": 5, "rounds": 9, "note": 1}], ["digits (a)", "digits (b)"]),
        (["a", "b"], [{}, {}], ["digits (a)", "digits (b)"]),
        (["a/run", "b/run"], [{}, {}], ["digits (1)", "digits (2)"]),
    ],
)
def test_labels_tell_runs_apart(
    tmp_path: Path, folders: list[str], fields: list[dict[str, Any]], labels: list[str]
) -> None:
    tables = [job(**changed) for changed in fields]
    runs = [read_run(keep(tmp_path / folder, journal(1), table)) for folder, table in zip(folders, tables, strict=True)]
    assert [group.label for group in grouped(runs)] == labels


def test_a_baseline_of_one_seed_is_not_said_to_be_of_all(tmp_path: Path) -> None:
    folders = [keep(tmp_path / str(seed), journal(1), job(seed=seed)) for seed in (1, 2)]
    keep(folders[0] / "baselines" / "pooled", journal(1))
    (group,) = grouped([read_run(folder) for folder in folders])
    baseline = group.baseline("pooled")
    assert group.label == "digits, 2 seeds"
    assert baseline is not None
    assert baseline.label == "digits: pooled baseline"
    assert group.baseline("local") is None


def test_only_the_fields_that_differ_are_told(tmp_path: Path) -> None:
    tables = [job(seed=1), job(seed=2), job(seed=1, local__lr=0.2, strategy={"name": "fedprox", "mu": 0.1})]
    groups = grouped([read_run(keep(tmp_path / str(place), journal(1), table)) for place, table in enumerate(tables)])
    assert differences(groups) == {
        "seed": ["1, 2", "1"],
        "local.lr": ["0.1", "0.2"],
        "strategy.name": ["fedavg", "fedprox"],
        "strategy.mu": ["", "0.1"],
    }
    assert differences(groups[:1]) == {}


def test_one_slow_round_does_not_make_a_phase_dear(tmp_path: Path) -> None:
    """Nor is its share more than it has of a usual round; what it took in all is told beside that."""
    lines = [
        {"round": at, "seconds": {"train": 0.09, "reduce": 0.01 if at > 1 else 9.0, "total": 0.1 if at > 1 else 9.09}}
        for at in range(1, 10)
    ]
    (group,) = grouped([read_run(keep(tmp_path / "run", lines))])
    timing = group.timing()
    assert timing["reduce"][0] == pytest.approx(0.01)
    assert timing["reduce"][2] == pytest.approx(9.08)
    assert {name: row[3] for name, row in timing.items()} == {
        "train": pytest.approx(0.9),
        "reduce": pytest.approx(0.1),
    }
