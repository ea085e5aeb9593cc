"""Strategies against client drift, against a plain NumPy loop written from each paper's pseudo-code."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedmpi.cohort.samplers import SAMPLERS
from tests.strategies import oracle
from tests.strategies.oracle import BATCH, RATE, Vector

PROBLEM = oracle.Problem()
ROUNDS = 5
Examples = Any  # what picks a batch out of a client's examples
Round = Callable[[Vector, int, list[int], Vector], Vector]  # model, round, cohort, its shares of the mean -> model


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return PROBLEM.write(tmp_path_factory.mktemp("problem") / "shards")


def gradient(w: Vector, client: int, batch: Examples = slice(None)) -> Vector:
    """g_k(w; batch); over all of the client's examples where no batch is named."""
    return oracle.loss_and_gradient(w, PROBLEM.x[client][batch], PROBLEM.y[client][batch], hidden=True)[1]


def nothing() -> Vector:
    return np.zeros_like(oracle.vector(oracle.start(hidden=True)))


@dataclass
class Local:
    """The local loop: 6 steps, or as many as `epochs` passes come to, so that clients take different numbers."""

    epochs: int | None = None
    momentum: float = 0.0

    def steps(self, client: int) -> int:
        return 6 if self.epochs is None else self.epochs * math.ceil(PROBLEM.sizes[client] / BATCH)

    def run(self, w: Vector, round: int, client: int, direction: Callable[[Vector, Examples], Vector]) -> Vector:
        """w <- w - eta v, v <- momentum v + the direction at w on the batch; the last w."""
        velocity = nothing()
        for batch in oracle.batches(round, client, PROBLEM.sizes[client], self.steps(client)):
            velocity = self.momentum * velocity + direction(w, batch)
            w = w - RATE * velocity
        return w

    def reach(self, client: int) -> float:
        """Where a constant gradient of -1 leads in units of eta: the coefficients with which it enters, summed."""
        velocity = place = 0.0
        for _ in range(self.steps(client)):
            velocity = self.momentum * velocity + 1.0
            place += velocity
        return place

    def table(self) -> dict[str, Any]:
        length = {"steps": 6} if self.epochs is None else {"epochs": self.epochs}
        return {"lr": RATE, "batch": BATCH, **length, "optimizer": {"name": "sgd", "momentum": self.momentum}}


def mean(vectors: Sequence[Vector], shares: Vector) -> Vector:
    return np.einsum("k,kp->p", shares, np.stack(vectors))


# Each is made afresh for a run: of its local loop and of every client's share of the mean.


def fedprox(local: Local, everyone: Vector, mu: float) -> Round:
    """Li et al. 2020, algorithm 2: SGD on h_k(w; w^t) = F_k(w) + mu/2 |w - w^t|^2, then the mean of models."""

    def round(x: Vector, number: int, cohort: list[int], shares: Vector) -> Vector:
        models = [local.run(x, number, k, lambda y, b, k=k: gradient(y, k, b) + mu * (y - x)) for k in cohort]
        return mean(models, shares)

    return round


def scaffold(local: Local, everyone: Vector, option: int, lr: float = 1.0) -> Round:
    """Karimireddy et al. 2020, algorithm 1: lines 10, 12 (option I or II), 16 and 17, where 1/N is a client's share.

    With momentum (which the paper has not) option II's K is how far a constant gradient leads.
    """
    c, own = nothing(), [nothing() for _ in everyone]

    def round(x: Vector, number: int, cohort: list[int], shares: Vector) -> Vector:
        nonlocal c
        updates, change = [], nothing()
        for k in cohort:
            y = local.run(x, number, k, lambda y, b, k=k: gradient(y, k, b) - own[k] + c)
            plus = gradient(x, k) if option == 1 else own[k] - c + (x - y) / (local.reach(k) * RATE)
            updates.append(y - x)
            change += everyone[k] * (plus - own[k])
            own[k] = plus
        c = c + change
        return x + lr * mean(updates, shares)

    return round


def fednova(local: Local, everyone: Vector) -> Round:
    """Wang et al. 2020, equation 7, tau_eff = sum p_k |a_k|; a_k of SGD with momentum rho is section 4's.

    a_k = [1 - rho^tau, 1 - rho^(tau - 1), ..., 1 - rho] / (1 - rho), tau ones without momentum.
    """

    def length(client: int) -> float:
        rho = local.momentum
        return sum((1 - rho**left) / (1 - rho) for left in range(1, local.steps(client) + 1))

    def round(x: Vector, number: int, cohort: list[int], shares: Vector) -> Vector:
        lengths = np.array([length(k) for k in cohort])
        models = [local.run(x, number, k, lambda y, b, k=k: gradient(y, k, b)) for k in cohort]
        directions = [(y - x) / one for y, one in zip(models, lengths, strict=True)]
        return x + shares @ lengths * mean(directions, shares)

    return round


def feddyn(local: Local, everyone: Vector, alpha: float) -> Round:
    """Acar et al. 2021, algorithm 1, the minimiser by SGD; own_k is grad L_k(theta_k), theta' the model received.

    theta_k = argmin L_k(theta) - <own_k, theta> + alpha/2 |theta - theta'|^2, own_k -= alpha (theta_k - theta'),
    h -= alpha/m sum over the cohort of (theta_k - theta'), theta = mean of theta_k - h / alpha.
    """
    h, own = nothing(), [nothing() for _ in everyone]

    def round(x: Vector, number: int, cohort: list[int], shares: Vector) -> Vector:
        nonlocal h
        models = []
        for k in cohort:
            y = local.run(x, number, k, lambda y, b, k=k: gradient(y, k, b) - own[k] + alpha * (y - x))
            own[k] = own[k] - alpha * (y - x)
            models.append(y)
        h = h - alpha / len(everyone) * sum((y - x for y in models), nothing())
        return np.mean(models, axis=0) - h / alpha

    return round


def mime(
    local: Local, everyone: Vector, lite: bool, base: str, beta: float = 0.9, beta2: float = 0.99, eps: float = 1e-3
) -> Round:
    """Karimireddy et al. 2021, algorithm 1, U and V of table 1; `lite` is without the lines for Mime alone.

    Clients step with the statistics as the round began; the server renews them by c, the cohort's mean gradient at x.
    """
    m, v = nothing(), nothing()

    def use(g: Vector) -> Vector:
        moved = (1 - beta) * g + beta * m
        return moved / (np.sqrt(v) + eps) if base == "adam" else moved

    def round(x: Vector, number: int, cohort: list[int], shares: Vector) -> Vector:
        nonlocal m, v
        c = mean([gradient(x, k) for k in cohort], shares)

        def direction(k: int) -> Callable[[Vector, Examples], Vector]:
            if lite:
                return lambda y, b: use(gradient(y, k, b))
            return lambda y, b: use(gradient(y, k, b) - gradient(x, k, b) + c)

        models = [local.run(x, number, k, direction(k)) for k in cohort]
        m, v = (1 - beta) * c + beta * m, (1 - beta2) * c**2 + beta2 * v
        return mean(models, shares)

    return round


@dataclass
class Case:
    name: str
    paper: Callable[..., Round]
    options: dict[str, Any] = field(default_factory=dict)
    local: Local = field(default_factory=Local)
    defaults: dict[str, Any] = field(default_factory=dict)  # what the oracle must be told and the job need not say
    server: dict[str, Any] = field(default_factory=dict)
    weightings: tuple[str | None, ...] = ("examples", "uniform")


UNLIKE, MOMENTUM = Local(epochs=2), Local(epochs=2, momentum=0.9)
SGDM, ADAM = {"base": "momentum", "beta": 0.6}, {"base": "adam", "beta": 0.7, "beta2": 0.8, "eps": 0.1}
ALIKE = (None, "uniform")  # FedDyn's clients count alike, said or not
CASES = {
    "fedprox": Case("fedprox", fedprox, defaults={"mu": 0.01}),
    "fedprox, mu": Case("fedprox", fedprox, {"mu": 0.8}, UNLIKE),
    "scaffold 1": Case("scaffold", scaffold, {"option": 1}),
    "scaffold 2": Case("scaffold", scaffold, {"option": 2}),
    "scaffold 1, lr": Case("scaffold", scaffold, {"option": 1}, UNLIKE, {"lr": 0.5}, {"lr": 0.5}),
    "scaffold 2, lr": Case("scaffold", scaffold, {"option": 2}, UNLIKE, {"lr": 0.5}, {"lr": 0.5}),
    "scaffold 2, momentum": Case("scaffold", scaffold, {"option": 2}, MOMENTUM),
    "fednova": Case("fednova", fednova, local=UNLIKE),
    "fednova, momentum": Case("fednova", fednova, local=MOMENTUM),
    "feddyn": Case("feddyn", feddyn, defaults={"alpha": 0.01}, weightings=ALIKE),
    "feddyn, alpha": Case("feddyn", feddyn, {"alpha": 0.5}, UNLIKE, weightings=ALIKE),
    "mime": Case("mime", mime, defaults={"lite": False, "base": "momentum"}),
    "mime, momentum": Case("mime", mime, SGDM, UNLIKE, {"lite": False}),
    "mime, adam": Case("mime", mime, ADAM, UNLIKE, {"lite": False}),
    "mimelite": Case("mimelite", mime, defaults={"lite": True, "base": "momentum"}),
    "mimelite, momentum": Case("mimelite", mime, SGDM, UNLIKE, {"lite": True}),
    "mimelite, adam": Case("mimelite", mime, ADAM, UNLIKE, {"lite": True}),
}


def cohort(round: int, size: int | None) -> list[int]:
    if size is None:
        return list(range(PROBLEM.clients))
    draw = SAMPLERS["uniform"](seed=oracle.SEED, clients=PROBLEM.clients, size=size).draw
    return [int(client) for client in draw(round).clients]


def followed(case: Case, size: int | None, weights: str | None) -> Vector:
    """The final model by NumPy."""
    w, everyone = oracle.vector(oracle.start(hidden=True)), PROBLEM.shares(weights or "examples")
    round = case.paper(case.local, everyone, **case.options, **case.defaults)
    for number in range(1, ROUNDS + 1):
        clients = cohort(number, size)
        w = round(w, number, clients, everyone[clients] / everyone[clients].sum())
    return w


def job(shards: Path, case: Case, size: int | None, weights: str | None = None) -> dict[str, Any]:
    sections: dict[str, Any] = {"rounds": ROUNDS, "threads": 1, "evaluation": {"every": 0}, "server": case.server}
    if size is not None:
        sections["cohort"] = {"size": size}
    if weights is not None:
        sections["aggregation"] = {"weights": weights}
    table = oracle.job(shards, {"name": case.name, **case.options}, **sections)
    return {**table, "local": case.local.table()}


@pytest.mark.parametrize("size", [None, 2])
@pytest.mark.parametrize(("name", "weights"), [(name, one) for name, case in CASES.items() for one in case.weightings])
def test_the_model_is_the_paper_s(shards: Path, name: str, size: int | None, weights: str | None) -> None:
    run = oracle.trained(job(shards, CASES[name], size, weights), hidden=True)
    np.testing.assert_allclose(oracle.vector(run.model), followed(CASES[name], size, weights), rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("ranks", oracle.RANKS)
@pytest.mark.parametrize("folder", [True, False])
def test_any_number_of_ranks_makes_the_paper_s_model(
    shards: Path, name: str, ranks: int, folder: bool, tmp_path: Path
) -> None:
    # With a folder a client's memory is asked for by other ranks than wrote it; without one it stays where it is.
    run = oracle.trained(job(shards, CASES[name], size=2), ranks, tmp_path / "run" if folder else None, hidden=True)
    np.testing.assert_allclose(oracle.vector(run.model), followed(CASES[name], 2, None), rtol=0, atol=1e-9)
