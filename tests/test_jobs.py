"""The recipes under jobs/: each can be read, and those whose data anyone has do what they say."""

from __future__ import annotations

from pathlib import Path

import pytest

import fedmpi
from fedmpi.data import make
from fedmpi.job import read

JOBS = sorted((Path(__file__).parents[1] / "jobs").glob("*.toml"))


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.stem)
def test_every_recipe_is_a_job_that_names_itself_and_its_data(path: Path) -> None:
    job = read(path)
    assert job.name == path.stem
    assert f"--out {job.data.shards}" in path.read_text()  # how to make them stands above


def recipe(name: str, *overrides: str) -> fedmpi.Run:
    path = next(path for path in JOBS if path.stem == name)
    return fedmpi.train(read(path, overrides))


def test_linear_finds_three_and_two(tmp_path: Path) -> None:
    make("linear", tmp_path / "linear", clients=2)
    model = recipe("linear", f"data.shards={tmp_path / 'linear'}").model
    slope, intercept = (parameter.item() for parameter in model.parameters())
    assert slope == pytest.approx(3, rel=0.01)
    assert intercept == pytest.approx(2, rel=0.01)


def test_digits_reaches_95_percent(tmp_path: Path) -> None:
    options = {"clients": 20, "partition": "dirichlet", "partition_options": {"alpha": 0.3}}
    make("digits", tmp_path / "digits", **options)
    run = recipe("digits", f"data.shards={tmp_path / 'digits'}", "evaluation.every=0", "threads=1")
    assert run.lines[-1]["evaluation"]["test"]["accuracy"] >= 0.95
