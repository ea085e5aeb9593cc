"""Rounds of their own: a ring of clients, and an ensemble of their models, beside plain NumPy loops."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fedmpi
from fedmpi.job import JobError
from fedmpi.use.evaluate import score
from fedmpi.use.load import load
from tests.fake import launch
from tests.strategies import oracle
from tests.strategies.oracle import BATCH, RATE

PROBLEM = oracle.Problem()
LOOPS: dict[str, dict[str, Any]] = {
    "cyclic": {"loop": "cyclic"},
    "random ring": {"loop": {"name": "cyclic", "order": "random"}, "strategy": "fedprox"},
    "ensemble": {"loop": "ensemble", "strategy": "local"},
    "bagging": {"loop": {"name": "ensemble", "bootstrap": True}, "strategy": "local"},
}
every_loop = pytest.mark.parametrize("loop", LOOPS)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return PROBLEM.write(tmp_path_factory.mktemp("loops") / "shards")


def learned(w: oracle.Vector, round: int, client: int, steps: int = 6) -> oracle.Vector:
    x, y = PROBLEM.x[client], PROBLEM.y[client]
    for rows in oracle.batches(round, client, len(y), steps, BATCH):
        w = w - RATE * oracle.loss_and_gradient(w, x[rows], y[rows])[1]
    return w


def test_a_ring_hands_the_model_from_client_to_client(shards: Path) -> None:
    """Chang et al. 2018: each client goes on from where the one before it stopped."""
    w = oracle.vector(oracle.start())
    for round in range(1, 5):
        for client in range(PROBLEM.clients):
            w = learned(w, round, client)
    run = oracle.trained(oracle.job(shards, "fedavg", loop="cyclic"))
    np.testing.assert_allclose(oracle.vector(run.model), w, atol=1e-9)


def test_a_ring_of_one_client_is_that_clients_training(shards: Path) -> None:
    w = oracle.vector(oracle.start())
    run = oracle.trained(oracle.job(shards, "fedavg", loop="cyclic", cohort={"size": 1}, rounds=3))
    sampler = oracle_cohort(1)
    for round in range(1, 4):
        w = learned(w, round, int(sampler.draw(round).clients[0]))
    np.testing.assert_allclose(oracle.vector(run.model), w, atol=1e-9)


def oracle_cohort(size: int) -> Any:
    from fedmpi.cohort.samplers import Uniform

    return Uniform(oracle.SEED, PROBLEM.clients, size)


def test_a_random_ring_takes_every_client_once(shards: Path) -> None:
    """In another order than the fixed ring's: the same clients' steps, another model."""
    table = oracle.job(shards, "fedavg", rounds=1)
    ends = []
    from itertools import permutations

    for order in permutations(range(PROBLEM.clients)):
        w = oracle.vector(oracle.start())
        for client in order:
            w = learned(w, 1, client)
        ends.append(w)
    run = oracle.trained(table | {"loop": {"name": "cyclic", "order": "random"}})
    apart = [np.abs(oracle.vector(run.model) - end).max() for end in ends]
    assert min(apart) < 1e-9
    assert sum(one < 1e-9 for one in apart) == 1


def test_an_ensemble_is_the_soft_vote_of_clients_who_train_alone(shards: Path) -> None:
    run = oracle.trained(oracle.job(shards, "local", loop="ensemble"))
    members = []
    for client in range(PROBLEM.clients):
        w = oracle.vector(oracle.start())
        for round in range(1, 5):
            w = learned(w, round, client)
        members.append(w)
    losses, alone = [], []
    for x, y, own in zip(PROBLEM.x, PROBLEM.y, members, strict=True):
        chances = np.mean([probabilities(w, x) for w in members], axis=0)
        losses.append(-np.log(chances[np.arange(len(y)), y]).mean())
        alone.append(oracle.loss_and_gradient(own, x, y)[0])
    told = run.lines[-1]["evaluation"]
    assert told["clients"]["loss"]["mean"] == pytest.approx(np.mean(losses), abs=1e-8)
    assert told["personal"]["loss"]["mean"] == pytest.approx(np.mean(alone), abs=1e-8)
    found = [oracle.vector(member) for member in run.model.members]  # type: ignore[union-attr]  # a SoftVote
    np.testing.assert_allclose(found, members, atol=1e-9)


def probabilities(w: oracle.Vector, x: oracle.Vector) -> oracle.Vector:
    weight = w[: oracle.FEATURES * oracle.CLASSES].reshape(oracle.CLASSES, oracle.FEATURES)
    logits = x @ weight.T + w[oracle.FEATURES * oracle.CLASSES :]
    chances = np.exp(logits - logits.max(1, keepdims=True))
    made: oracle.Vector = chances / chances.sum(1, keepdims=True)
    return made


def test_who_never_trained_has_no_vote(shards: Path) -> None:
    run = oracle.trained(oracle.job(shards, "local", loop="ensemble", cohort={"size": 1}, rounds=2))
    sampler = oracle_cohort(1)
    came = {int(sampler.draw(round).clients[0]) for round in (1, 2)}
    assert len(run.model.members) == len(came) < PROBLEM.clients  # type: ignore[arg-type]  # a SoftVote


def test_a_bag_is_drawn_once_from_a_clients_own_examples(shards: Path) -> None:
    from fedmpi.rounds.loops.ensemble import Bags

    bags = Bags(fedmpi.ShardSet.open(shards), 3)
    for client in range(PROBLEM.clients):
        x, y = bags.train(client)
        again, _ = bags.train(client)
        assert torch.equal(x, again)
        rows = [np.flatnonzero((PROBLEM.x[client] == row).all(1)) for row in x.numpy()]
        assert all(len(found) == 1 for found in rows)
        assert len({int(found[0]) for found in rows}) < len(x) == PROBLEM.sizes[client]
        np.testing.assert_array_equal(PROBLEM.y[client][np.concatenate(rows)], y.numpy())


@every_loop
@pytest.mark.parametrize("kept", [False, True])
def test_the_same_bits_at_any_number_of_ranks(shards: Path, tmp_path: Path, loop: str, kept: bool) -> None:
    """Nothing is summed, so no stage is needed; with a folder any rank serves any client."""
    table = oracle.job(shards, "fedavg", cohort={"size": 3}) | LOOPS[loop]
    alone = oracle.trained(table)
    for ranks in (2, 4):
        run = oracle.trained(table, ranks, tmp_path / f"{ranks}" if kept else None)
        np.testing.assert_array_equal(oracle.vector(run.model), oracle.vector(alone.model))
        assert [line["evaluation"] for line in run.lines] == [line["evaluation"] for line in alone.lines]


class Killed(BaseException):
    """As a SIGKILL would: nothing that catches errors sees it."""


@every_loop
def test_resume_equals_never_stopping(shards: Path, tmp_path: Path, loop: str) -> None:
    table = oracle.job(shards, "fedavg", cohort={"size": 2}, rounds=5) | LOOPS[loop]
    whole = oracle.trained(table)

    def kill(line: dict[str, Any]) -> None:
        if line["round"] == 2:
            raise Killed

    def model(shape: tuple[int, ...], outputs: int) -> torch.nn.Module:
        return oracle.start()

    with pytest.raises(Killed):
        fedmpi.train(table, model=model, out=tmp_path / "run", on_round=kill)
    run = launch(3, lambda comm: fedmpi.train(table, comm, model=model, out=tmp_path / "run", resume=True))[0]
    np.testing.assert_array_equal(oracle.vector(run.model), oracle.vector(whole.model))
    assert run.lines[-1]["evaluation"] == whole.lines[-1]["evaluation"]


@pytest.mark.parametrize("loop", ["cyclic", "ensemble"])
def test_a_target_keeps_the_model_that_met_it(shards: Path, tmp_path: Path, loop: str) -> None:
    """The round in flight is dropped: the run's model is the one that was scored."""
    table = oracle.job(shards, "fedavg", rounds=40, stop={"metric": "loss", "loss": 0.75}) | LOOPS[loop]
    run = oracle.trained(table, out=tmp_path / "run")
    last = run.lines[-1]
    assert run.stopped == "loss 0.75 reached"
    assert last["round"] < 40
    shorter = oracle.trained(table | {"rounds": last["round"], "stop": {}})
    np.testing.assert_array_equal(oracle.vector(run.model), oracle.vector(shorter.model))
    assert last["evaluation"] == shorter.lines[-1]["evaluation"]
    assert json.loads((tmp_path / "run" / "journal.jsonl").read_text().splitlines()[-1])["round"] == last["round"]


@every_loop
def test_a_trained_run_can_be_used(shards: Path, tmp_path: Path, loop: str) -> None:
    table = oracle.job(shards, "fedavg") | LOOPS[loop] | {"model": "logistic"}
    run = fedmpi.train(table, out=tmp_path / "run")
    found = score(load(tmp_path / "run"))
    for kind, told in run.lines[-1]["evaluation"].items():
        assert found[kind]["loss"] == pytest.approx(told["loss"])


@pytest.mark.parametrize("loop", ["cyclic", "ensemble"])
@pytest.mark.parametrize(
    "change",
    [
        {"aggregation": {"stages": ["fixed-point"]}},
        {"strategy": "scaffold"},
        {"server": {"optimizer": "adam"}},
    ],
)
def test_what_needs_a_sum_is_refused(shards: Path, loop: str, change: dict[str, Any]) -> None:
    if loop == "ensemble" and "server" in change:
        change = {"strategy": "fedavg"}
    with pytest.raises(JobError, match=f"^loop: {loop}"):
        oracle.trained(oracle.job(shards, "fedavg") | LOOPS[loop] | change)


def test_a_ring_takes_every_local_rule(shards: Path) -> None:
    for strategy in ("fedavg", "fedsgd", "fedprox", "feddecorr", "fine-tuning", "per-fedavg"):
        table = oracle.job(shards, strategy, loop="cyclic", rounds=2)
        table["local"] = {"lr": RATE} if strategy == "fedsgd" else table["local"]
        lines = oracle.trained(table).lines
        assert lines[-1]["train_loss"] < lines[0]["train_loss"]
