"""What an older fedmpi wrote still opens, answers as it did, and goes on to the bits that it would have come to."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fedmpi
from fedmpi.data import ShardSet
from fedmpi.report.page import write_report
from fedmpi.use.evaluate import score
from fedmpi.use.load import load
from tests.fixtures.make import FINISHED, JOB, RUNS, examples

OLD = Path(__file__).parent / "fixtures" / "f9437f9"
EXPECTED = json.loads((OLD / "expected.json").read_text())
SAME = (EXPECTED["torch"], EXPECTED["cpu"]) == (torch.__version__, torch.backends.cpu.get_cpu_capability())


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what it left, as the working folder: its jobs name their shard set from there."""
    shutil.copytree(OLD, tmp_path / "old")
    monkeypatch.chdir(tmp_path / "old")
    return tmp_path / "old"


def job(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, **JOB, **RUNS[name], **more}


def the_same(model: torch.nn.Module, name: str) -> None:
    """Bit for bit, by the torch and the kind of processor that made it; elsewhere as near as float32 adds up.

    Counters are another matter: that code put BatchNorm's count of batches back before every client.
    """
    tensors = {key: tensor for key, tensor in model.state_dict().items() if tensor.is_floating_point()}
    expected = EXPECTED["runs"][name]["tensors"]
    assert set(expected) >= set(tensors)
    for key, tensor in tensors.items():
        then = torch.tensor(expected[key], dtype=tensor.dtype)
        assert torch.equal(tensor, then) if SAME else torch.allclose(tensor, then, atol=1e-4), key


@pytest.mark.parametrize("name", RUNS)
def test_an_interrupted_run_goes_on_to_the_bits_of_the_undisturbed_one(old: Path, name: str) -> None:
    run = fedmpi.train(job(name), out=old / f"{name}-half", resume=True)
    the_same(run.model, name)
    written = [json.loads(line) for line in (old / f"{name}-half" / "journal.jsonl").read_text().splitlines()]
    assert [line["round"] for line in written] == list(range(1, JOB["rounds"] + 1))
    last = EXPECTED["runs"][name]["last"]
    assert (written[-1]["weight"], written[-1]["stopped"]) == (last["weight"], last["stopped"])
    for key in ("train_loss", "evaluation"):
        assert leaves(written[-1][key]) == (leaves(last[key]) if SAME else pytest.approx(leaves(last[key]), abs=1e-2))


@pytest.mark.parametrize("name", FINISHED)
def test_a_finished_run_is_evaluated_and_predicts_as_it_did(old: Path, name: str) -> None:
    scores, expected = score(load(old / f"{name}-finished")), EXPECTED["runs"][name]
    assert leaves(scores) == pytest.approx(leaves(expected["evaluate"]), abs=1e-6)
    x = torch.from_numpy(np.load("x.npy"))
    for whose, answers in expected["outputs"].items():
        model = load(old / f"{name}-finished", client=None if whose == "common" else whose).model.eval()
        with torch.no_grad():
            assert torch.allclose(model(x), torch.tensor(answers), atol=1e-6), whose
    best = load(old / f"{name}-finished", "best").model
    assert all(torch.isfinite(parameter).all() for parameter in best.parameters())


def leaves(table: Any) -> list[float]:
    return [leaf for value in table.values() for leaf in leaves(value)] if isinstance(table, dict) else [table]


def test_finished_and_interrupted_runs_are_reported_together(old: Path) -> None:
    page = write_report([old / "ditto-finished", old / "scaffold-half"], old / "report.html").read_text()
    assert "ditto" in page
    assert "scaffold" in page


@pytest.mark.parametrize("name", ["fedavg", "ditto"])
def test_a_finished_run_is_given_more_rounds(old: Path, name: str) -> None:
    """Which end as one that had so many from the start."""
    longer = job(name, rounds=8)
    more = fedmpi.train(longer, out=old / f"{name}-finished", resume=True)
    once = fedmpi.train(longer)
    for one, other in zip(more.model.state_dict().values(), once.model.state_dict().values(), strict=True):
        assert torch.equal(one, other) if SAME else torch.allclose(one, other, atol=1e-4)


def test_the_shard_set_holds_what_was_written(old: Path) -> None:
    shards, given = ShardSet.open(old / "set"), examples()
    assert (shards.clients, shards.classes, shards.shape) == (len(given), ("low", "middle", "high"), (5,))
    for client, (name, (x, y)) in enumerate(given.items()):
        assert shards.id(client) == name
        both = [torch.cat(pair).numpy() for pair in zip(shards.train(client), shards.heldout(client), strict=True)]
        rows = [np.column_stack([a, b]) for a, b in ((x, y), both)]
        np.testing.assert_array_equal(*(each[np.lexsort(each.T)] for each in rows))


@pytest.mark.mpi
@pytest.mark.parametrize("name", ["scaffold", "ditto"])
def test_an_interrupted_run_goes_on_at_this_number_of_ranks(
    tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    folder = None
    if world.rank == 0:
        folder = tmp_path_factory.mktemp("old") / "old"
        shutil.copytree(OLD, folder)
    folder = world.bcast(folder)
    run = fedmpi.train(job(name, data={"shards": str(folder / "set")}), world, out=folder / f"{name}-half", resume=True)
    the_same(run.model, name)
