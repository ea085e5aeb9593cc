"""Strategies that care for the clients that fare worst are their papers' loops."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedmpi.cohort.samplers import SAMPLERS
from fedmpi.job import JobError
from tests.strategies import oracle
from tests.strategies.oracle import RATE, SIZES, Vector

ROUNDS, STEPS = 5, 6
PROBLEM = oracle.Problem()
START = oracle.vector(oracle.start())
Cohorts = Sequence[Sequence[int]]

cohort_sizes = pytest.mark.parametrize("size", [4, 2], ids=["everyone", "partial"])


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return PROBLEM.write(tmp_path_factory.mktemp("fair") / "shards")


def cohorts(size: int, rounds: int = ROUNDS) -> Cohorts:
    sampler = SAMPLERS["uniform"](seed=oracle.SEED, clients=PROBLEM.clients, size=size)
    return [sampler.draw(round).clients.tolist() for round in range(1, rounds + 1)]


def loss(w: Vector, client: int) -> float:
    """A client's loss over all its examples."""
    return oracle.loss_and_gradient(w, PROBLEM.x[client], PROBLEM.y[client])[0]


def local(w: Vector, round: int, client: int) -> Vector:
    """Where a client's plain gradient steps lead from `w`."""
    x, y = PROBLEM.x[client], PROBLEM.y[client]
    for batch in oracle.batches(round, client, SIZES[client], STEPS):
        w = w - RATE * oracle.loss_and_gradient(w, x[batch], y[batch])[1]
    return w


def fair(q: float, cohorts: Cohorts) -> Vector:
    """Li et al. 2020, algorithm 2: updates scaled by L = 1 / lr, over the estimates h of the curvature."""
    w, lipschitz = START, 1 / RATE
    for round, chosen in enumerate(cohorts, 1):
        delta, h = np.zeros_like(w), 0.0
        for client in chosen:
            objective, change = loss(w, client), lipschitz * (w - local(w, round, client))
            delta = delta + objective**q * change
            h += q * objective ** (q - 1) * change @ change + lipschitz * objective**q
        w = w - delta / h
    return w


def agnostic(rate: float, prior: Vector, cohorts: Cohorts) -> Vector:
    """Ro et al. 2021, algorithm 1, every client a domain: weights by exponentiated gradient (Mohri et al. 2019).

    A client's weight is the prior's times exp(rate * the losses that it has told, at models received before).
    """
    w, told = START, np.zeros(len(prior))
    for round, chosen in enumerate(cohorts, 1):
        logits = np.log(prior[chosen]) + rate * told[chosen]
        mixture = np.exp(logits - logits.max())
        mixture /= mixture.sum()
        told[chosen] += [loss(w, client) for client in chosen]
        w = np.sum([share * local(w, round, client) for share, client in zip(mixture, chosen, strict=True)], axis=0)
    return w


def final(shards: Path, strategy: Any, **sections: Any) -> Vector:
    job = oracle.job(shards, strategy, **{"rounds": ROUNDS, "evaluation": {"every": 0}, "threads": 1, **sections})
    return oracle.vector(oracle.trained(job).model)


@cohort_sizes
@pytest.mark.parametrize("q", [0.0, 0.5, 2.0])
def test_qfedavg_is_algorithm_2(shards: Path, q: float, size: int) -> None:
    found = final(shards, {"name": "qfedavg", "q": q}, cohort={"size": size})
    np.testing.assert_allclose(found, fair(q, cohorts(size)), atol=1e-8)


def test_qfedavg_counts_clients_alike(shards: Path) -> None:
    found = final(shards, "qfedavg", aggregation={"weights": "uniform"})
    np.testing.assert_array_equal(found, final(shards, "qfedavg"))
    with pytest.raises(JobError, match=r"aggregation\.weights: 'examples' given, but qfedavg has its own"):
        final(shards, "qfedavg", aggregation={"weights": "examples"})


@cohort_sizes
@pytest.mark.parametrize("weights", ["examples", "uniform"])
@pytest.mark.parametrize("rate", [0.1, 2.0])
def test_agnostic_is_exponentiated_gradient_on_the_mixture(shards: Path, rate: float, weights: str, size: int) -> None:
    found = final(shards, {"name": "agnostic", "rate": rate}, aggregation={"weights": weights}, cohort={"size": size})
    np.testing.assert_allclose(found, agnostic(rate, PROBLEM.shares(weights), cohorts(size)), atol=1e-8)


@pytest.mark.parametrize("weights", ["examples", "uniform"])
def test_at_rate_0_agnostic_is_fedavg(shards: Path, weights: str) -> None:
    sections = {"aggregation": {"weights": weights}, "cohort": {"size": 2}}
    found = final(shards, {"name": "agnostic", "rate": 0.0}, **sections)
    np.testing.assert_allclose(found, final(shards, "fedavg", **sections), rtol=1e-12, atol=1e-14)


@cohort_sizes
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_no_rate_makes_agnostic_s_weights_overflow_or_vanish(shards: Path, size: int, dtype: str) -> None:
    """exp of the largest sum of losses has some thousand digits: the hardest client leads, and the model stays one."""
    sections = {"rounds": 60, "cohort": {"size": size}, "model": {"name": "start", "dtype": dtype}}
    run = oracle.trained(oracle.job(shards, {"name": "agnostic", "rate": 200.0}, **sections))
    assert np.isfinite(oracle.vector(run.model)).all()
    assert run.lines[-1]["train_loss"] < run.lines[0]["train_loss"]


@pytest.mark.parametrize("strategy", [{"name": "qfedavg", "q": 2.0}, {"name": "agnostic", "rate": 0.5}])
def test_the_client_that_fares_worst_fares_better_than_with_fedavg(shards: Path, strategy: Any) -> None:
    sections = {"local": {"lr": 0.3, "batch": 0, "steps": 3}, "rounds": 40}
    worst = [max(loss(final(shards, name, **sections), client) for client in range(4)) for name in (strategy, "fedavg")]
    assert worst[0] < worst[1] - 0.02


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("strategy", [{"name": "qfedavg", "q": 0.5}, {"name": "agnostic", "rate": 2.0}])
def test_ranks_change_nothing(shards: Path, tmp_path: Path, strategy: Any, ranks: int) -> None:
    job = oracle.job(shards, strategy, cohort={"size": 3}, rounds=ROUNDS, evaluation={"every": 0}, threads=1)
    found = oracle.trained(job, ranks, tmp_path / "run")  # with a folder a client's memory moves from rank to rank
    np.testing.assert_allclose(oracle.vector(found.model), oracle.vector(oracle.trained(job).model), atol=1e-9)
