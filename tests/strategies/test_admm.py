"""Inexact ADMM is its papers' pseudo-code, and finds the optimum that averaging misses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fedmpi
from fedmpi.cohort.samplers import SAMPLERS
from tests.strategies import oracle
from tests.strategies.oracle import SIZES, Vector

ROUNDS, STEPS = 5, 6
PROBLEM = oracle.Problem()
START = oracle.vector(oracle.start())
CLIENTS = range(PROBLEM.clients)
Cohorts = Sequence[Sequence[int]]
QUIET = {"evaluation": {"every": 0}, "threads": 1}

both = pytest.mark.parametrize("name", ["iiadmm", "iceadmm"])
cohort_sizes = pytest.mark.parametrize("size", [4, 2, 1], ids=["everyone", "partial", "one"])


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return PROBLEM.write(tmp_path_factory.mktemp("admm") / "shards")


def cohorts(size: int) -> Cohorts:
    sampler = SAMPLERS["uniform"](seed=oracle.SEED, clients=PROBLEM.clients, size=size)
    return [sampler.draw(round).clients.tolist() for round in range(1, ROUNDS + 1)]


def gradients(round: int, client: int) -> list[Callable[[Vector], Vector]]:
    """The gradient of each of a client's batches in a round, in their order."""
    x, y = PROBLEM.x[client], PROBLEM.y[client]
    order = oracle.batches(round, client, SIZES[client], STEPS)
    return [lambda w, at=at: oracle.loss_and_gradient(w, x[at], y[at])[1] for at in order]


def iiadmm(rho: float, zeta: float, cohorts: Cohorts) -> Vector:
    """Ryu and Kim 2022, algorithm 1 (IIADMM): w by equation (3a) over all clients, z from w, the dual once a round."""
    z, dual = [START for _ in CLIENTS], [np.zeros_like(START) for _ in CLIENTS]
    w = START
    for round, chosen in enumerate(cohorts, 1):
        for client in chosen:
            z[client] = w
            for g in gradients(round, client):
                step = g(z[client]) - dual[client] - rho * (w - z[client])
                z[client] = z[client] - step / (rho + zeta)
            dual[client] = dual[client] + rho * (w - z[client])
        w = np.mean([z[client] - dual[client] / rho for client in CLIENTS], axis=0)
    return w


def iceadmm(rho: float, zeta: float, cohorts: Cohorts) -> Vector:
    """Zhou and Li 2021 (ICEADMM): z goes on from where the client left it, and the dual moves at every step."""
    z, dual = [START for _ in CLIENTS], [np.zeros_like(START) for _ in CLIENTS]
    w = START
    for round, chosen in enumerate(cohorts, 1):
        for client in chosen:
            for g in gradients(round, client):
                step = g(z[client]) + dual[client] + rho * (z[client] - w)
                z[client] = z[client] - step / (rho + zeta)
                dual[client] = dual[client] + rho * (z[client] - w)
        w = np.mean([z[client] + dual[client] / rho for client in CLIENTS], axis=0)
    return w


def strategy(name: str, rho: float, zeta: float) -> dict[str, Any]:
    return {"name": name, "rho": rho, "zeta": zeta}


@cohort_sizes
@pytest.mark.parametrize(("rho", "zeta"), [(1.0, 10.0), (3.0, 0.0), (0.5, 4.0)])
@pytest.mark.parametrize("method", [iiadmm, iceadmm])
def test_it_is_the_paper_s_loop(
    shards: Path, method: Callable[[float, float, Cohorts], Vector], rho: float, zeta: float, size: int
) -> None:
    job = oracle.job(shards, strategy(method.__name__, rho, zeta), rounds=ROUNDS, cohort={"size": size}, **QUIET)
    found = oracle.vector(oracle.trained(job).model)
    np.testing.assert_allclose(found, method(rho, zeta, cohorts(size)), atol=1e-8)


@both
def test_the_local_rate_has_no_part(shards: Path, name: str) -> None:
    runs = [oracle.trained(oracle.job(shards, name, local={"lr": lr}, **QUIET)) for lr in (0.1, 0.9)]
    np.testing.assert_array_equal(*(oracle.vector(run.model) for run in runs))


@both
@pytest.mark.parametrize("size", [4, 2], ids=["everyone", "partial"])
def test_it_converges_to_the_optimum_of_the_clients_mean_quadratic(tmp_path: Path, name: str, size: int) -> None:
    random = np.random.default_rng(3)
    x = [random.normal(size=(n, 3)) * random.uniform(0.6, 1.4, size=3) for n in SIZES]
    y = [part @ random.normal(size=3) * 2 + random.normal() for part in x]  # every client follows a line of its own
    data = {f"c{client}": (x[client], y[client], x[client], y[client]) for client in CLIENTS}
    fedmpi.write_shards(tmp_path / "shards", data)
    ones = [np.column_stack([part, np.ones(len(part))]) for part in x]
    hessian = np.sum([part.T @ part / len(part) for part in ones], axis=0)
    target = np.sum([part.T @ of / len(of) for part, of in zip(ones, y, strict=True)], axis=0)

    def model(shape: tuple[int, ...], outputs: int) -> torch.nn.Module:
        return torch.nn.Linear(3, 1).double()

    job = oracle.job(
        tmp_path / "shards", strategy(name, 5.0, 5.0), local={"batch": 0, "steps": 4}, cohort={"size": size},
        rounds=150, task={"name": "regression"}, **QUIET,
    )  # fmt: skip
    found = oracle.vector(fedmpi.train(job, model=model).model)
    np.testing.assert_allclose(found, np.linalg.solve(hessian, target), atol=1e-6)
    fedavg = oracle.vector(fedmpi.train({**job, "strategy": "fedavg"}, model=model).model)
    assert np.abs(fedavg - found).max() > 0.01  # local steps on other data lead it elsewhere


@both
@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_change_nothing(shards: Path, tmp_path: Path, name: str, ranks: int) -> None:
    job = oracle.job(shards, name, cohort={"size": 3}, rounds=ROUNDS, **QUIET)
    found = oracle.trained(job, ranks, tmp_path / "run")  # with a folder a client's memory moves from rank to rank
    np.testing.assert_allclose(oracle.vector(found.model), oracle.vector(oracle.trained(job).model), atol=1e-9)
