"""Laws between strategies: where one's options make it another, and what client drift costs where clients differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fedmpi
from tests.strategies import oracle
from tests.strategies.oracle import RATE, Vector

QUICK = {"threads": 1, "evaluation": {"every": 0}}
UNIFORM = {"aggregation": {"weights": "uniform"}}
PARTIAL = {"cohort": {"size": 3}}
MOMENTUM = {"local": {"optimizer": {"name": "sgd", "momentum": 0.9}}}
PROBLEM, EQUAL = oracle.Problem(), oracle.Problem(sizes=(8, 8, 8, 8))


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return PROBLEM.write(tmp_path_factory.mktemp("problem") / "shards")


@pytest.fixture(scope="module")
def equal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return EQUAL.write(tmp_path_factory.mktemp("equal") / "shards")


def model(shards: Path, strategy: Any, **sections: Any) -> Vector:
    job = oracle.job(shards, strategy, **QUICK, **sections)
    return oracle.vector(oracle.trained(job, hidden=True).model)


def close(one: Vector, other: Vector) -> None:
    """Equal to rounding, after both have left the start."""
    assert np.abs(one - oracle.vector(oracle.start(hidden=True))).max() > 0.01
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize("sections", [{}, PARTIAL, UNIFORM, MOMENTUM])
def test_fedprox_without_a_proximal_term_is_fedavg_bit_for_bit(shards: Path, sections: dict[str, Any]) -> None:
    # Plain SGD has a recording of its own.
    sections = sections | {"local": {**sections.get("local", {}), "engine": "sequential"}}
    one, other = model(shards, {"name": "fedprox", "mu": 0.0}, **sections), model(shards, "fedavg", **sections)
    close(one, other)
    assert np.array_equal(one, other)


@pytest.mark.parametrize("option", [1, 2])
def test_scaffold_with_one_local_step_is_sgd_on_the_mean_gradient(equal: Path, option: int) -> None:
    w, clients = oracle.vector(oracle.start(hidden=True)), range(EQUAL.clients)
    for round in range(1, 13):
        drawn = [next(oracle.batches(round, k, EQUAL.sizes[k], 1)) for k in clients]
        gradients = [
            oracle.loss_and_gradient(w, EQUAL.x[k][batch], EQUAL.y[k][batch], hidden=True)[1]
            for k, batch in zip(clients, drawn, strict=True)
        ]
        w = w - RATE * np.mean(gradients, axis=0)
    close(model(equal, {"name": "scaffold", "option": option}, local={"steps": 1}, rounds=12), w)


@pytest.mark.parametrize("sections", [{}, PARTIAL, UNIFORM, MOMENTUM])
def test_fednova_with_equal_steps_is_fedavg(shards: Path, sections: dict[str, Any]) -> None:
    close(model(shards, "fednova", **sections), model(shards, "fedavg", **sections))


@pytest.mark.parametrize("sections", [{}, PARTIAL])
def test_q_fedavg_with_q_0_is_uniform_fedavg(shards: Path, sections: dict[str, Any]) -> None:
    close(model(shards, {"name": "qfedavg", "q": 0.0}, **sections), model(shards, "fedavg", **sections, **UNIFORM))


@pytest.mark.parametrize("sections", [{}, PARTIAL, UNIFORM])
def test_agnostic_averaging_that_learns_no_weights_is_fedavg(shards: Path, sections: dict[str, Any]) -> None:
    close(model(shards, {"name": "agnostic", "rate": 0.0}, **sections), model(shards, "fedavg", **sections))


@pytest.mark.parametrize("sections", [{}, PARTIAL, UNIFORM])
@pytest.mark.parametrize("strategy", ["mime", "mimelite"])
def test_mime_without_momentum_and_with_one_full_step_is_fedsgd(
    shards: Path, strategy: str, sections: dict[str, Any]
) -> None:
    whole = {"local": {"batch": 0, "steps": 1}}
    one = model(shards, {"name": strategy, "beta": 0.0}, **whole, **sections)
    close(one, model(shards, "fedsgd", **whole, **sections))


# Linear regression, y = x w_k: full-batch clients whose losses differ in curvature and in optimum.

FEATURES, STEPS, LR, ROUNDS = 3, 20, 0.05, 60
SCALES = (0.4, 0.8, 1.2, 1.8)


def regression() -> list[tuple[Vector, Vector]]:
    """Each client's x `(n, features)`, scaled its own way in each feature, and its w_k `(features,)`."""
    random = np.random.default_rng(3)
    return [
        (
            random.normal(size=(12, FEATURES)) * scale * random.uniform(0.6, 1.4, size=FEATURES),
            random.normal(size=FEATURES) * 2,
        )
        for scale in SCALES
    ]


def optimum() -> Vector:
    """Where the mean of the clients' mean squared errors is least: sum H_k (w - w_k) = 0."""
    hessians = [2 * x.T @ x / len(x) for x, _ in regression()]
    return np.linalg.solve(sum(hessians), sum(h @ own for h, (_, own) in zip(hessians, regression(), strict=True)))


def drifted() -> Vector:
    """Where FedAvg comes to rest: steps take w to w_k + (I - lr H_k)^steps (w - w_k), and the mean of that is w."""
    moves = [
        np.eye(FEATURES) - np.linalg.matrix_power(np.eye(FEATURES) - LR * 2 * x.T @ x / len(x), STEPS)
        for x, _ in regression()
    ]
    return np.linalg.solve(sum(moves), sum(move @ own for move, (_, own) in zip(moves, regression(), strict=True)))


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("regression") / "shards"
    fedmpi.write_shards(folder, {f"c{k}": (x, x @ own) for k, (x, own) in enumerate(regression())}, holdout=0.0)
    return folder


def reached(lines: Path, strategy: dict[str, Any]) -> Vector:
    def start(shape: tuple[int, ...], outputs: int) -> torch.nn.Module:
        layer = torch.nn.Linear(FEATURES, 1, bias=False).double()
        torch.nn.init.zeros_(layer.weight)
        return layer

    local = {"lr": LR, "batch": 0, "steps": STEPS}
    job = oracle.job(lines, strategy, rounds=ROUNDS, local=local, **QUICK, **UNIFORM)
    return oracle.vector(fedmpi.train(job, model=start).model)


def test_fedavg_drifts_from_the_optimum_as_far_as_the_closed_form_says(lines: Path) -> None:
    assert np.linalg.norm(drifted() - optimum()) > 0.5 * np.linalg.norm(optimum())
    np.testing.assert_allclose(reached(lines, {"name": "fedavg"}), drifted(), rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    "strategy",
    [{"name": "scaffold", "option": 1}, {"name": "scaffold", "option": 2}, {"name": "feddyn", "alpha": 1.0}],
    ids=["scaffold 1", "scaffold 2", "feddyn"],
)
def test_scaffold_and_feddyn_reach_the_optimum_that_fedavg_misses(lines: Path, strategy: dict[str, Any]) -> None:
    missed = np.linalg.norm(drifted() - optimum())
    assert np.linalg.norm(reached(lines, strategy) - optimum()) < missed / 1000
