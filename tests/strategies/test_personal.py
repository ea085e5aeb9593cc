"""A model for each client: plain loops written from the papers, and what holds whichever it is.

A client that never took part uses the common model.  Layers that stay with their client are in test_heads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fedmpi
from fedmpi.cohort.samplers import SAMPLERS
from fedmpi.records.journal import read_journal
from fedmpi.rounds.baseline import baseline
from fedmpi.strategies import STRATEGIES
from tests.fake import launch
from tests.strategies import oracle
from tests.strategies.oracle import RATE, SEED, Vector

PROBLEM = oracle.Problem()
CLIENTS = range(PROBLEM.clients)
FIRST = oracle.vector(oracle.start())
ROUNDS, STEPS = 4, 6
Outcome = tuple[Vector, list[float]]  # the model that travels, and the loss of each client's own


def gradient(w: Vector, client: int, at: Any = slice(None)) -> Vector:
    """The mean gradient over some of a client's examples."""
    return oracle.loss_and_gradient(w, PROBLEM.x[client][at], PROBLEM.y[client][at])[1]


def loss(w: Vector, client: int) -> float:
    return oracle.loss_and_gradient(w, PROBLEM.x[client], PROBLEM.y[client])[0]


def batches(round: int, client: int, steps: int = STEPS) -> Iterator[Any]:
    return oracle.batches(round, client, PROBLEM.sizes[client], steps)


def sgd(w: Vector, round: int, client: int, steps: int = STEPS) -> Vector:
    for at in batches(round, client, steps):
        w = w - RATE * gradient(w, client, at)
    return w


@dataclass
class Federation:
    """Who comes in which round, and what a client counts in a mean."""

    size: int = PROBLEM.clients
    weights: str = "examples"

    @property
    def cohorts(self) -> Iterator[tuple[int, list[int]]]:
        sampler = SAMPLERS["uniform"](seed=SEED, clients=PROBLEM.clients, size=self.size)
        for round in range(1, ROUNDS + 1):
            yield round, sampler.draw(round).clients.tolist()

    def mean(self, cohort: list[int], models: list[Vector]) -> Vector:
        return np.average(models, axis=0, weights=PROBLEM.shares(self.weights)[cohort])

    @property
    def sections(self) -> dict[str, Any]:
        return {"rounds": ROUNDS, "threads": 1, "cohort": {"size": self.size}, "aggregation": {"weights": self.weights}}


def fine_tuning(federation: Federation, steps: int = STEPS) -> Outcome:
    """Wang et al. 2019, section 3: federated averaging; then each client trains the model that came of it."""
    w = FIRST
    for round, cohort in federation.cohorts:
        w = federation.mean(cohort, [sgd(w, round, k) for k in cohort])
    return w, [loss(sgd(w, ROUNDS + 1, k, steps), k) for k in CLIENTS]


def ditto(federation: Federation, lam: float = 0.1, steps: int = STEPS) -> Outcome:
    """Li et al. 2021, algorithm 1: a solver's update of w, and s steps of v_k pulled towards w as it was sent."""
    w, own = FIRST, dict[int, Vector]()
    for round, cohort in federation.cohorts:
        for k in cohort:
            v = own.get(k, FIRST)
            for at in batches(round, k, steps):
                v = v - RATE * (gradient(v, k, at) + lam * (v - w))
            own[k] = v
        w = federation.mean(cohort, [sgd(w, round, k) for k in cohort])
    return w, [loss(own.get(k, w), k) for k in CLIENTS]


def pfedme(federation: Federation, lam: float = 15, inner: int = 5, inner_lr: float = 0.01, beta: float = 1) -> Outcome:
    """T. Dinh et al. 2020, algorithm 1: h's minimum near w_i on a batch, a step of w_i towards it; beta at the server.

    How theta is found is left open: by `inner` steps on the one batch, from the last theta of the round or, first, w.
    """
    w, own = FIRST, dict[int, Vector]()
    for round, cohort in federation.cohorts:
        sent = []
        for k in cohort:
            here = theta = w
            for at in batches(round, k):
                for _ in range(inner):
                    theta = theta - inner_lr * (gradient(theta, k, at) + lam * (theta - here))
                here = here - RATE * lam * (here - theta)
            sent.append(here)
            own[k] = theta
        w = (1 - beta) * w + beta * federation.mean(cohort, sent)
    return w, [loss(own.get(k, w), k) for k in CLIENTS]


def apfl(federation: Federation, alpha: float = 0.5, adapt: bool = True) -> Outcome:
    """Deng et al. 2020, algorithm 1: both steps at the mixture of the step before; alpha by equation 10.

    The gradient by v at the mixture is alpha times the one at that point; a client's model mixes in the common one.
    """
    w, own = FIRST, dict[int, tuple[float, Vector]]()
    for round, cohort in federation.cohorts:
        sent = []
        for k in cohort:
            here = w
            for step, at in enumerate(batches(round, k)):
                a, v = own.get(k, (alpha, FIRST))
                mixed = gradient(a * v + (1 - a) * here, k, at)
                moved = float(np.clip(a - RATE * (v - here) @ mixed, 0, 1)) if adapt and step == 0 else a
                own[k] = moved, v - RATE * a * mixed
                here = here - RATE * gradient(here, k, at)
            sent.append(here)
        w = federation.mean(cohort, sent)
    mixtures = [a * v + (1 - a) * w for a, v in (own.get(k, (0.0, w)) for k in CLIENTS)]
    return w, [loss(mixture, k) for k, mixture in enumerate(mixtures)]


def per_fedavg(federation: Federation, inner_lr: float = 0.01, adapt: int = 1) -> Outcome:
    """Fallah et al. 2020, algorithm 1, the Hessian in its outer step left out: D and D' are fresh batches."""
    w = FIRST
    for round, cohort in federation.cohorts:
        sent = []
        for k in cohort:
            here, fresh = w, batches(round, k, 2 * STEPS)
            for inside, outside in zip(fresh, fresh, strict=True):
                ahead = here - inner_lr * gradient(here, k, inside)
                here = here - RATE * gradient(ahead, k, outside)
            sent.append(here)
        w = federation.mean(cohort, sent)
    losses = []
    for k in CLIENTS:
        own = w
        for at in batches(ROUNDS + 1, k, adapt):
            own = own - inner_lr * gradient(own, k, at)
        losses.append(loss(own, k))
    return w, losses


def drawn(shape: tuple[int, ...], outputs: int) -> torch.nn.Module:
    """A first model that torch's generator makes."""
    return torch.nn.Linear(*shape, outputs).double()


def ifca(federation: Federation, clusters: int = 2) -> Outcome:
    """Ghosh et al. 2020, algorithm 1, option II: a worker's cluster, its local updates, the mean of each cluster."""
    models = []
    for place in range(clusters):
        with torch.random.fork_rng():
            torch.manual_seed(SEED + place)
            models.append(oracle.vector(drawn((oracle.FEATURES,), oracle.CLASSES)))
    for round, cohort in federation.cohorts:
        chosen = {k: int(np.argmin([loss(theta, k) for theta in models])) for k in cohort}
        learnt = {k: sgd(models[chosen[k]], round, k) for k in cohort}
        for place in set(chosen.values()):
            members = [k for k in cohort if chosen[k] == place]
            models[place] = federation.mean(members, [learnt[k] for k in members])
    return models[0], [min(loss(theta, k) for theta in models) for k in CLIENTS]


PAPERS = {paper.__name__.replace("_", "-"): paper for paper in (fine_tuning, ditto, pfedme, apfl, per_fedavg, ifca)}
FEDERATIONS = [Federation(), Federation(weights="uniform"), Federation(size=2), Federation(size=1)]
CASES: list[tuple[str, dict[str, Any]]] = [
    ("fine-tuning", {}),
    ("fine-tuning", {"steps": 9}),
    ("ditto", {}),
    ("ditto", {"lam": 0.6, "steps": 8}),
    ("pfedme", {}),
    ("pfedme", {"lam": 2.0, "inner": 3, "inner_lr": 0.05, "beta": 0.7}),
    ("apfl", {}),
    ("apfl", {"alpha": 0.97}),
    ("apfl", {"alpha": 0.3, "adapt": False}),
    ("per-fedavg", {}),
    ("per-fedavg", {"inner_lr": 0.05, "adapt": 3}),
    ("ifca", {"clusters": 2}),
    ("ifca", {"clusters": 3}),
]
PERSONAL = [name for name in STRATEGIES if STRATEGIES[name](server=None).personalises]
every = pytest.mark.parametrize("name", PERSONAL)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return PROBLEM.write(tmp_path_factory.mktemp("personal"))


def normed(shape: tuple[int, ...], outputs: int) -> torch.nn.Module:
    """A first model with something for every strategy: a last layer, normalisation, statistics."""
    first, tanh, last = oracle.start(hidden=True)
    return torch.nn.Sequential(first, torch.nn.BatchNorm1d(oracle.HIDDEN).double(), tanh, last)


def trained(table: dict[str, Any], ranks: int = 1, **given: Any) -> fedmpi.Run:
    """fedmpi's run on threads; IFCA's models are drawn, all others begin with `normed`."""
    model = drawn if table["strategy"]["name"] == "ifca" else normed
    return launch(ranks, lambda comm: fedmpi.train(table, comm, model=model, **given))[0]


@pytest.mark.parametrize("federation", FEDERATIONS, ids=str)
@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_it_is_the_loop_of_the_paper(shards: Path, name: str, options: dict[str, Any], federation: Federation) -> None:
    """The model that travels, and the loss of every client's own."""
    expected, losses = PAPERS[name](federation, **options)
    given = {option: value for option, value in options.items() if option != "beta"}
    server = {"lr": options.get("beta", 1.0)}
    table = oracle.job(shards, {"name": name, **given}, server=server, **federation.sections)
    run = trained(table) if name == "ifca" else oracle.trained(table)
    np.testing.assert_allclose(oracle.vector(run.model), expected, rtol=0, atol=1e-8)
    scores = run.lines[-1]["evaluation"]
    assert scores["personal"]["loss"]["mean"] == pytest.approx(np.mean(losses), abs=1e-8)
    assert scores["personal"]["loss"]["worst_tenth"] == pytest.approx(max(losses), abs=1e-8)
    if name != "ifca":  # none of its models is everybody's
        common = np.mean([loss(expected, k) for k in CLIENTS])
        assert scores["clients"]["loss"]["mean"] == pytest.approx(common, abs=1e-8)


def job(shards: Path, name: str, **sections: Any) -> dict[str, Any]:
    """Batches that leave no single example over, which normalisation refuses; cohorts to which clients come back."""
    local = {"lr": RATE, "batch": 7, "steps": STEPS}
    return oracle.job(shards, {"name": name}, local=local, cohort={"size": 2}, rounds=6, threads=1, **sections)


@every
def test_it_is_the_same_at_any_number_of_ranks(shards: Path, tmp_path: Path, name: str) -> None:
    """Also where clients' own models go through the run's folder to whichever rank serves them next."""
    alone = trained(job(shards, name))
    for ranks, folder in [(2, None), (4, tmp_path / "run")]:
        shared = trained(job(shards, name), ranks, out=folder)
        np.testing.assert_allclose(oracle.vector(shared.model), oracle.vector(alone.model), rtol=0, atol=1e-9)
        for line, other in zip(shared.lines, alone.lines, strict=True):
            one, two = (entry["evaluation"]["personal"]["loss"] for entry in (line, other))
            assert one == pytest.approx(two, abs=1e-9)


class Killed(BaseException):
    """As a SIGKILL would: nothing that catches errors sees it."""


def told(run: fedmpi.Run) -> list[dict[str, Any]]:
    return [
        {name: part for name, part in line.items() if name not in ("seconds", "idle", "bytes")} for line in run.lines
    ]


@every
def test_a_resumed_run_is_one_that_never_stopped(shards: Path, tmp_path: Path, name: str) -> None:
    """Bits and lines, on as many ranks or on others.

    A kill leaves behind what clients learned after the last checkpoint, which must not count.
    """
    table = job(shards, name, aggregation={"stages": ["fixed-point"]}, checkpoint={"every": 3})
    whole = trained(table)

    def kill(line: dict[str, Any]) -> None:
        if line["round"] == 5:
            raise Killed

    with pytest.raises(Killed):
        trained(table, out=tmp_path / "killed", on_round=kill)
    trained(table | {"rounds": 3}, out=tmp_path / "ended")
    for folder, ranks in (("killed", 3), ("ended", 1)):
        resumed = trained(table, ranks, out=tmp_path / folder, resume=True)
        assert np.array_equal(oracle.vector(resumed.model), oracle.vector(whole.model)), folder
        assert told(resumed) == told(whole), folder


@pytest.mark.parametrize("strategy", [{"name": "ditto", "lam": 0.0}, {"name": "local"}], ids=str)
def test_ditto_without_a_pull_is_local_training(shards: Path, tmp_path: Path, strategy: dict[str, Any]) -> None:
    local = {"engine": "sequential"}  # a baseline trains one client at a time
    run = fedmpi.train(oracle.job(shards, strategy, model={"name": "logistic"}, threads=1, local=local))
    baseline(run.job, None, "local", tmp_path)
    alone = read_journal(tmp_path / "baselines" / "local" / "journal.jsonl")[-1]
    assert run.lines[-1]["evaluation"]["personal"] == alone["evaluation"]["clients"]


def test_the_common_model_of_ditto_is_the_one_of_fedavg(shards: Path) -> None:
    sections = Federation(size=2).sections
    ditto, fedavg = (oracle.trained(oracle.job(shards, {"name": name}, **sections)) for name in ("ditto", "fedavg"))
    assert np.array_equal(oracle.vector(ditto.model), oracle.vector(fedavg.model))
    for line, other in zip(ditto.lines, fedavg.lines, strict=True):
        assert line["evaluation"]["clients"] == other["evaluation"]["clients"]
        assert line["train_loss"] == other["train_loss"]
