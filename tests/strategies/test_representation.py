"""Losses that look at what goes into the last layer, against their equations and their gradients by a complex step."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedmpi.cohort.samplers import SAMPLERS
from fedmpi.strategies import STRATEGIES
from tests.strategies import oracle
from tests.strategies.oracle import CLASSES, FEATURES, HIDDEN, RATE, SIZES, Vector

ROUNDS, STEPS = 4, 6  # client 0's third batch is one example alone
PROBLEM = oracle.Problem()
START = oracle.vector(oracle.start(hidden=True))
QUIET = {"evaluation": {"every": 0}, "threads": 1}
Cohorts = Sequence[Sequence[int]]
Term = Callable[[Any], Any]  # of a representation `(N, HIDDEN)`, a number

cohort_sizes = pytest.mark.parametrize("size", [4, 2], ids=["everyone", "partial"])


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return PROBLEM.write(tmp_path_factory.mktemp("representation") / "shards")


def cohorts(size: int) -> Cohorts:
    sampler = SAMPLERS["uniform"](seed=oracle.SEED, clients=PROBLEM.clients, size=size)
    return [sampler.draw(round).clients.tolist() for round in range(1, ROUNDS + 1)]


def representation(w: Any, x: Vector) -> Any:
    """`(N, HIDDEN)`: the tanh layer, whose weights `(HIDDEN, FEATURES)` and biases are the first of `w`."""
    weights = w[: HIDDEN * FEATURES].reshape(HIDDEN, FEATURES)
    return np.tanh(x @ weights.T + w[HIDDEN * FEATURES : HIDDEN * (FEATURES + 1)])


def loss(w: Any, x: Vector, y: Any, term: Term) -> Any:
    """Mean cross-entropy and a term of the representation; analytic in `w`, which may be complex."""
    z, head = representation(w, x), w[HIDDEN * (FEATURES + 1) :]
    outputs = z @ head[: CLASSES * HIDDEN].reshape(CLASSES, HIDDEN).T + head[CLASSES * HIDDEN :]
    return (np.log(np.exp(outputs).sum(1)) - outputs[np.arange(len(y)), y]).mean() + term(z)


def gradient(w: Vector, x: Vector, y: Any, term: Term) -> Vector:
    """By a complex step in every coordinate: exact to rounding, for nothing is subtracted."""
    tiny = 1e-30
    return np.array([loss(w + 1j * tiny * one, x, y, term).imag / tiny for one in np.eye(len(w))])


def averaged(cohorts: Cohorts, shares: Vector, learn: Callable[[Vector, int, int], Vector]) -> Vector:
    """Federated averaging of what `learn(w, round, client)` makes of the model."""
    w = START
    for round, chosen in enumerate(cohorts, 1):
        w = np.average([learn(w, round, client) for client in chosen], axis=0, weights=shares[list(chosen)])
    return w


def descended(w: Vector, round: int, client: int, term: Callable[[Vector], Term]) -> Vector:
    """A client's plain gradient steps, each with the `term` of its batch's inputs."""
    x, y = PROBLEM.x[client], PROBLEM.y[client]
    for batch in oracle.batches(round, client, SIZES[client], STEPS):
        w = w - RATE * gradient(w, x[batch], y[batch], term(x[batch]))
    return w


def moon(mu: float, temperature: float, cohorts: Cohorts, shares: Vector) -> Vector:
    """Li et al. 2021, algorithm 1 with equation 3; w_prev is what the client made when it last took part."""
    previous = [START for _ in SIZES]

    def cosine(z: Any, other: Vector) -> Any:
        return (z * other).sum(1) / np.sqrt((z * z).sum(1)) / np.sqrt((other * other).sum(1))

    def learn(w: Vector, round: int, client: int) -> Vector:
        def contrast(x: Vector) -> Term:
            glob, prev = representation(w, x), representation(previous[client], x)

            def term(z: Any) -> Any:
                near, far = np.exp(cosine(z, glob) / temperature), np.exp(cosine(z, prev) / temperature)
                return mu * -np.log(near / (near + far)).mean()

            return term

        made = descended(w, round, client, contrast)
        previous[client] = made
        return made

    return averaged(cohorts, shares, learn)


def feddecorr(beta: float, cohorts: Cohorts, shares: Vector) -> Vector:
    """Shi et al. 2023, equation 6: beta / d^2 times the squared Frobenius norm of the correlation matrix."""

    def decorrelate(x: Vector) -> Term:
        def term(z: Any) -> Any:
            z = z - z.mean(0)
            z = z / np.sqrt((z * z).mean(0) + 1e-8)
            correlation = z.T @ z / len(z)
            return beta / HIDDEN**2 * (correlation * correlation).sum()

        return term

    return averaged(cohorts, shares, lambda w, round, client: descended(w, round, client, decorrelate))


def final(
    shards: Path, strategy: Any, size: int, weights: str = "examples", ranks: int = 1, out: Any = None, **local: Any
) -> Vector:
    job = oracle.job(
        shards, strategy, rounds=ROUNDS, cohort={"size": size}, aggregation={"weights": weights}, local=local, **QUIET
    )  # fmt: skip
    return oracle.vector(oracle.trained(job, ranks, out, hidden=True).model)


def test_the_oracle_s_gradient_is_the_one_by_hand() -> None:
    x, y = PROBLEM.x[1], PROBLEM.y[1]
    by_hand = oracle.loss_and_gradient(START, x, y, hidden=True)[1]
    np.testing.assert_allclose(gradient(START, x, y, lambda z: 0.0), by_hand, rtol=1e-12, atol=1e-14)


@cohort_sizes
@pytest.mark.parametrize(("mu", "temperature"), [(1.0, 0.5), (5.0, 2.0)])
def test_moon_is_equation_3(shards: Path, mu: float, temperature: float, size: int) -> None:
    found = final(shards, {"name": "moon", "mu": mu, "temperature": temperature}, size)
    np.testing.assert_allclose(found, moon(mu, temperature, cohorts(size), PROBLEM.shares()), atol=1e-8)
    assert np.abs(found - final(shards, "fedavg", size)).max() > 1e-4  # the term is no idle one here


@cohort_sizes
@pytest.mark.parametrize("beta", [0.1, 2.0])
def test_feddecorr_is_equation_6(shards: Path, beta: float, size: int) -> None:
    found = final(shards, {"name": "feddecorr", "beta": beta}, size)
    np.testing.assert_allclose(found, feddecorr(beta, cohorts(size), PROBLEM.shares()), atol=1e-8)


@pytest.mark.parametrize("strategy", ["moon", "feddecorr"])
def test_the_job_says_how_clients_count(shards: Path, strategy: str) -> None:
    shares = PROBLEM.shares("uniform")
    expected = moon(1.0, 0.5, cohorts(3), shares) if strategy == "moon" else feddecorr(0.1, cohorts(3), shares)
    np.testing.assert_allclose(final(shards, strategy, 3, "uniform"), expected, atol=1e-8)


@pytest.mark.parametrize("strategy", [{"name": "moon", "mu": 0.0}, {"name": "feddecorr", "beta": 0.0}])
def test_without_its_term_it_is_fedavg_to_the_bit(shards: Path, strategy: Any) -> None:
    one, other = (final(shards, each, 2, engine="sequential") for each in (strategy, "fedavg"))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("strategy", ["moon", "feddecorr"])
def test_ranks_change_nothing(shards: Path, tmp_path: Path, strategy: str, ranks: int) -> None:
    found = final(shards, strategy, 3, ranks=ranks, out=tmp_path / "run")
    np.testing.assert_allclose(found, final(shards, strategy, 3), atol=1e-9)


def test_feddecorr_s_docstring_gives_the_factor_to_the_authors_code() -> None:
    """Their term (z^T z of the batch, not its mean; the unbiased variance; no diagonal), written out anew."""
    random, n = np.random.default_rng(5), 16
    x, y = random.normal(size=(n, FEATURES)), random.integers(0, CLASSES, n)

    def ours(z: Any) -> Any:
        scaled = (z - z.mean(0)) / np.sqrt(((z - z.mean(0)) ** 2).mean(0))
        return ((scaled.T @ scaled / n) ** 2).sum() / HIDDEN**2

    def theirs(z: Any) -> Any:
        scaled = (z - z.mean(0)) / np.sqrt(((z - z.mean(0)) ** 2).sum(0) / (n - 1))
        kernel = scaled.T @ scaled
        return ((kernel**2).sum() - (np.diag(kernel) ** 2).sum()) / (HIDDEN * (HIDDEN - 1)) / n

    plain = gradient(START, x, y, lambda z: 0 * z.sum())
    mine, its = (gradient(START, x, y, term) - plain for term in (ours, theirs))
    np.testing.assert_allclose(its, mine * (n - 1) ** 2 / n * HIDDEN / (HIDDEN - 1), rtol=1e-7, atol=1e-12)
    module = inspect.getmodule(STRATEGIES["feddecorr"])
    assert module is not None
    assert "(N - 1)^2 / N * d / (d - 1)" in str(module.__doc__)
    assert "0.1 (N - 2)" in str(STRATEGIES["feddecorr"].__doc__)


def test_iiadmm_names_both_papers() -> None:
    module = inspect.getmodule(STRATEGIES["iiadmm"])
    assert module is not None
    told = " ".join(str(module.__doc__).split())
    assert "APPFL: Open-Source Software Framework" in told
    assert "Inexact ADMM with Multiple Local Updates" in told
    assert "each round begins at the received w" in told
