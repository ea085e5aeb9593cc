"""What the server makes of the mean, against a plain NumPy loop written from each paper's pseudo-code."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedmpi.cohort.samplers import SAMPLERS
from fedmpi.training.schedules import SCHEDULES
from tests.strategies import oracle
from tests.strategies.oracle import RATE, Vector

PROBLEM = oracle.Problem()
ROUNDS = 5
Move = Callable[[Vector, list[Vector], Vector], Vector]  # model, updates, their shares of the mean -> model
Learn = Callable[[Vector, int, int], Vector]  # model received, round, client -> update
Rates = Iterable[float]  # the server's learning rate in each round
ALWAYS = (1.0,) * ROUNDS
QUICK = {"rounds": ROUNDS, "threads": 1, "evaluation": {"every": 0}}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return PROBLEM.write(tmp_path_factory.mktemp("problem") / "shards")


# What a client sends.


def training(rate: float = RATE, steps: int = 6) -> Learn:
    """McMahan et al. 2017, algorithm 1, ClientUpdate: w <- w - eta g(w; b) over the batches; the change of w."""

    def learn(received: Vector, round: int, client: int) -> Vector:
        w = received
        for batch in oracle.batches(round, client, PROBLEM.sizes[client], steps):
            w = w - rate * oracle.loss_and_gradient(w, PROBLEM.x[client][batch], PROBLEM.y[client][batch])[1]
        return w - received

    return learn


def descended(received: Vector, round: int, client: int) -> Vector:
    """McMahan et al. 2017, section 2, FedSGD: -eta g_k, the gradient over all of the client's examples."""
    return -RATE * oracle.loss_and_gradient(received, PROBLEM.x[client], PROBLEM.y[client])[1]


def directed(received: Vector, round: int, client: int) -> Vector:
    """Hazan et al. 2015, algorithm 1, lines 3 to 5: a step of length eta against the gradient's direction."""
    gradient = oracle.loss_and_gradient(received, PROBLEM.x[client], PROBLEM.y[client])[1]
    return -RATE * gradient / math.sqrt(gradient @ gradient)


# What the server does with it; each is made afresh for a run, with its own memory.


def mean(updates: list[Vector], shares: Vector) -> Vector:
    return np.einsum("k,kp->p", shares, np.stack(updates))


def averaging(lr: Rates = ALWAYS) -> Move:
    """Reddi et al. 2021, algorithm 1, with SGD as ServerOpt."""
    rates = iter(lr)
    return lambda w, updates, shares: w + next(rates) * mean(updates, shares)


def momentum(beta: float, lr: Rates = ALWAYS, nesterov: bool = False) -> Move:
    """Hsu et al. 2019, section 4: v <- beta v + update, w <- w + lr v.

    Nesterov's as Sutskever et al. 2013 rewrite it: the step looks ahead by beta v once more.
    """
    velocity, rates = np.zeros(1), iter(lr)

    def move(w: Vector, updates: list[Vector], shares: Vector) -> Vector:
        nonlocal velocity
        change = mean(updates, shares)
        velocity = beta * velocity + change
        return w + next(rates) * (change + beta * velocity if nesterov else velocity)

    return move


def adaptive(kind: str, lr: Rates, beta1: float, beta2: float, tau: float) -> Move:
    """Reddi et al. 2021, algorithm 2, v_{-1} = tau^2; as its last version has it, v is of the updates, not of m."""
    m, v, rates = np.zeros(1), np.full(1, tau**2), iter(lr)

    def move(w: Vector, updates: list[Vector], shares: Vector) -> Vector:
        nonlocal m, v
        change = mean(updates, shares)
        m = beta1 * m + (1 - beta1) * change
        if kind == "adagrad":
            v = v + change**2
        elif kind == "yogi":
            v = v - (1 - beta2) * change**2 * np.sign(v - change**2)
        else:
            v = beta2 * v + (1 - beta2) * change**2
        return w + next(rates) * m / (np.sqrt(v) + tau)

    return move


def extrapolated(eps: float) -> Move:
    """Jhunjhunwala et al. 2023, equation 8, with shares for 1/M.

    eta_g = max(1, mean of |update|^2 / (2 (|mean update|^2 + eps))).
    """

    def move(w: Vector, updates: list[Vector], shares: Vector) -> Vector:
        change = mean(updates, shares)
        lengths = sum(share * (update @ update) for share, update in zip(shares, updates, strict=True))
        return w + max(1.0, lengths / (2 * (change @ change + eps))) * change

    return move


@dataclass
class Case:
    strategy: dict[str, Any]
    move: Callable[[], Move]
    server: dict[str, Any] = field(default_factory=dict)
    learn: Learn = field(default_factory=training)
    local: dict[str, Any] = field(default_factory=lambda: {"lr": RATE, "batch": oracle.BATCH, "steps": 6})


def of(lr: float) -> Rates:
    return (lr,) * ROUNDS


LONG, NO_LOOP = {"lr": 0.4, "batch": oracle.BATCH, "steps": 30}, {"lr": RATE}
AVERAGED, TENTH, BETAS = {"name": "fedavg"}, {"lr": 0.1}, {"beta1": 0.8, "beta2": 0.9, "tau": 0.1}
CASES = {
    "fedavg": Case(AVERAGED, averaging),
    "fedavg, lr": Case(AVERAGED, lambda: averaging(of(0.3)), {"lr": 0.3}),
    "fedavg, momentum": Case(
        AVERAGED, lambda: momentum(0.7, of(0.5)), {"lr": 0.5, "optimizer": {"name": "sgd", "momentum": 0.7}}
    ),
    "fedsgd": Case({"name": "fedsgd"}, averaging, {}, descended, NO_LOOP),
    "fedsgd, lr": Case({"name": "fedsgd"}, lambda: averaging(of(3.0)), {"lr": 3.0}, descended, NO_LOOP),
    "normalised-sgd": Case({"name": "normalised-sgd"}, averaging, {}, directed, NO_LOOP),
    "normalised-sgd, lr": Case({"name": "normalised-sgd"}, lambda: averaging(of(2.0)), {"lr": 2.0}, directed, NO_LOOP),
    "fedavgm": Case({"name": "fedavgm"}, lambda: momentum(0.9)),
    "fedavgm, lr": Case({"name": "fedavgm", "momentum": 0.6}, lambda: momentum(0.6, of(0.4)), {"lr": 0.4}),
    "fedavgm, nesterov": Case(
        {"name": "fedavgm", "nesterov": True}, lambda: momentum(0.9, of(0.5), nesterov=True), {"lr": 0.5}
    ),
    "fedadagrad": Case({"name": "fedadagrad"}, lambda: adaptive("adagrad", of(0.1), 0, 0, 1e-3), TENTH),
    "fedadagrad, beta1": Case(
        {"name": "fedadagrad", "beta1": 0.9, "tau": 0.05}, lambda: adaptive("adagrad", of(0.1), 0.9, 0, 0.05), TENTH
    ),
    "fedadam": Case({"name": "fedadam"}, lambda: adaptive("adam", of(0.1), 0.9, 0.99, 1e-3), TENTH),
    "fedadam, betas": Case({"name": "fedadam", **BETAS}, lambda: adaptive("adam", of(0.1), 0.8, 0.9, 0.1), TENTH),
    "fedyogi": Case({"name": "fedyogi"}, lambda: adaptive("yogi", of(0.1), 0.9, 0.99, 1e-3), TENTH),
    # tau lies among the updates: v moves up at some of the model's values and down at others.
    "fedyogi, betas": Case({"name": "fedyogi", **BETAS}, lambda: adaptive("yogi", of(0.1), 0.8, 0.9, 0.1), TENTH),
    "fedexp": Case({"name": "fedexp"}, lambda: extrapolated(1e-3)),
    # Clients that train for long disagree: the factor is above 1 in most rounds, where above it seldom is.
    "fedexp, long": Case({"name": "fedexp", "eps": 0.05}, lambda: extrapolated(0.05), {}, training(0.4, 30), LONG),
}


def cohort(round: int, size: int | None) -> list[int]:
    if size is None:
        return list(range(PROBLEM.clients))
    draw = SAMPLERS["uniform"](seed=oracle.SEED, clients=PROBLEM.clients, size=size).draw
    return [int(client) for client in draw(round).clients]


def followed(move: Move, learn: Learn, size: int | None = None, weights: str = "examples") -> Vector:
    """The final model by NumPy."""
    w, counts = oracle.vector(oracle.start()), PROBLEM.shares(weights)
    for round in range(1, ROUNDS + 1):
        clients = cohort(round, size)
        w = move(w, [learn(w, round, client) for client in clients], counts[clients] / counts[clients].sum())
    return w


def job(shards: Path, case: Case, size: int | None = None, weights: str = "examples") -> dict[str, Any]:
    sections: dict[str, Any] = {**QUICK, "server": case.server, "aggregation": {"weights": weights}}
    if size is not None:
        sections["cohort"] = {"size": size}
    return {**oracle.job(shards, case.strategy, **sections), "local": case.local}


every = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@every
@pytest.mark.parametrize("size", [None, 2])
@pytest.mark.parametrize("weights", ["examples", "uniform"])
def test_the_model_is_the_paper_s(shards: Path, case: Case, size: int | None, weights: str) -> None:
    run = oracle.trained(job(shards, case, size, weights))
    expected = followed(case.move(), case.learn, size, weights)
    np.testing.assert_allclose(oracle.vector(run.model), expected, rtol=0, atol=1e-8)


@every
@pytest.mark.parametrize("ranks", oracle.RANKS)
def test_any_number_of_ranks_makes_the_paper_s_model(shards: Path, case: Case, ranks: int) -> None:
    run = oracle.trained(job(shards, case, size=3), ranks)
    np.testing.assert_allclose(oracle.vector(run.model), followed(case.move(), case.learn, 3), rtol=0, atol=1e-9)


# The server's learning rate over rounds: its options, and its factors in five rounds.
PACES = {
    "constant": ({}, [1.0, 1.0, 1.0, 1.0, 1.0]),
    "exponential": ({"decay": 0.8}, [1.0, 0.8, 0.64, 0.512, 0.4096]),
    "linear": ({"end": 0.2}, [1.0, 0.84, 0.68, 0.52, 0.36]),
    "step": ({"every": 2, "factor": 0.5}, [1.0, 1.0, 0.5, 0.5, 0.25]),
    "cosine": ({"end": 0.1}, [0.1 + 0.9 * math.cos(math.pi * past / 10) ** 2 for past in range(5)]),
}
PACED: dict[str, Callable[[Rates], Move]] = {
    "fedavg": averaging,
    "fedavgm": lambda rates: momentum(0.9, rates),
    "fedadam": lambda rates: adaptive("adam", rates, 0.9, 0.99, 1e-3),
}


def test_no_schedule_is_left_out() -> None:
    assert PACES.keys() == SCHEDULES.keys()


@pytest.mark.parametrize("strategy", PACED)
@pytest.mark.parametrize("schedule", PACES)
def test_a_schedule_multiplies_the_server_s_rate(shards: Path, schedule: str, strategy: str) -> None:
    options, factors = PACES[schedule]
    server = {"lr": 0.5, "schedule": {"name": schedule, **options}}
    run = oracle.trained(oracle.job(shards, strategy, **QUICK, server=server))
    expected = followed(PACED[strategy]([0.5 * factor for factor in factors]), training())
    np.testing.assert_allclose(oracle.vector(run.model), expected, rtol=0, atol=1e-8)
