"""Layers that stay with their client, against plain loops written from the papers; and that they never travel."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fedmpi
from fedmpi.flow import HEADER
from tests.strategies import oracle
from tests.strategies.oracle import CLASSES, FEATURES, HIDDEN, RATE, Vector
from tests.strategies.test_personal import CLIENTS, FEDERATIONS, PROBLEM, STEPS, Federation, Outcome, batches, trained

BODY, HEAD = slice(0, (FEATURES + 1) * HIDDEN), slice((FEATURES + 1) * HIDDEN, None)
SHARED = {"0": HEAD, "2": BODY}  # what travels where this layer of `oracle.start(hidden=True)` stays
EPSILON, MOMENTUM = 1e-5, 0.1  # torch's, of batch normalisation


def first() -> Vector:
    return oracle.vector(oracle.start(hidden=True))


def descended(w: Vector, round: int, client: int, steps: int, moves: slice = slice(None)) -> Vector:
    """SGD on a part of a model, the rest of which stands still."""
    w = w.copy()
    for at in batches(round, client, steps):
        x, y = PROBLEM.x[client][at], PROBLEM.y[client][at]
        w[moves] -= RATE * oracle.loss_and_gradient(w, x, y, hidden=True)[1][moves]
    return w


def outcome(w: Vector, own: list[Vector], shared: slice) -> Outcome:
    """The model that travels beside the layer that all began with, and the loss of each client's layer in it."""
    common, losses = first(), []
    common[shared] = w[shared]
    for k in CLIENTS:
        model = own[k].copy()
        model[shared] = w[shared]
        losses.append(oracle.loss_and_gradient(model, PROBLEM.x[k], PROBLEM.y[k], hidden=True)[0])
    return common, losses


def fedper(federation: Federation, head: tuple[str, ...] = ("2",)) -> Outcome:
    """Arivazhagan et al. 2019: a client trains both parts together (algorithm 1), the server averages one (2)."""
    shared = SHARED[head[0]]
    w, own = first(), [first() for _ in CLIENTS]
    for round, cohort in federation.cohorts:
        for k in cohort:
            own[k][shared] = w[shared]
            own[k] = descended(own[k], round, k, STEPS)
        w = federation.mean(cohort, [own[k] for k in cohort])
    return outcome(w, own, shared)


def fedrep(federation: Federation, head: tuple[str, ...] = ("2",), head_steps: int = STEPS) -> Outcome:
    """Collins et al. 2021, algorithm 1: tau steps of the head from its last one, then those of the representation."""
    shared = SHARED[head[0]]
    w, own = first(), [first() for _ in CLIENTS]
    for round, cohort in federation.cohorts:
        for k in cohort:
            own[k][shared] = w[shared]
            own[k] = descended(own[k], round, k, head_steps, BODY if shared == HEAD else HEAD)
            own[k] = descended(own[k], round, k, STEPS, shared)
        w = federation.mean(cohort, [own[k] for k in cohort])
    return outcome(w, own, shared)


Layers = dict[str, Vector]  # of `normed`: what travels, or a client's normalisation


def normalised(shared: Layers, norm: Layers, k: int) -> tuple[float, Layers, Layers, Layers]:
    """Over all of a client's examples: the loss, the gradients of both parts, and the statistics as they move on."""
    x, y, n = PROBLEM.x[k], PROBLEM.y[k], PROBLEM.sizes[k]
    z = x @ shared["w1"].T + shared["b1"]
    deviation = np.sqrt(z.var(0) + EPSILON)
    unit = (z - z.mean(0)) / deviation
    hidden = np.tanh(norm["gamma"] * unit + norm["beta"])
    chances = np.exp(hidden @ shared["w2"].T + shared["b2"])
    chances /= chances.sum(1, keepdims=True)
    error = (chances - np.eye(CLASSES)[y]) / n
    below = (error @ shared["w2"]) * (1 - hidden**2)
    into = below * norm["gamma"]
    into = (into - into.mean(0) - unit * (into * unit).mean(0)) / deviation  # the mean and deviation move too
    travels = {"w1": into.T @ x, "b1": into.sum(0), "w2": error.T @ hidden, "b2": error.sum(0)}
    stays = {"gamma": (below * unit).sum(0), "beta": below.sum(0)}
    statistics = {
        "mean": (1 - MOMENTUM) * norm["mean"] + MOMENTUM * z.mean(0),
        "var": (1 - MOMENTUM) * norm["var"] + MOMENTUM * z.var(0, ddof=1),
    }
    return float(-np.log(chances[np.arange(n), y]).mean()), travels, stays, statistics


def used(shared: Layers, norm: Layers, k: int) -> float:
    """A client's loss when the model is used: with the statistics that it has kept."""
    z = PROBLEM.x[k] @ shared["w1"].T + shared["b1"]
    unit = (z - norm["mean"]) / np.sqrt(norm["var"] + EPSILON)
    logits = np.tanh(norm["gamma"] * unit + norm["beta"]) @ shared["w2"].T + shared["b2"]
    right = logits[np.arange(len(logits)), PROBLEM.y[k]]
    return float((np.log(np.exp(logits).sum(1)) - right).mean())


def fedbn(federation: Federation) -> Outcome:
    """Li et al. 2021, algorithm 1: local steps of every layer; the mean of every layer that is no normalisation."""
    body, head = first()[BODY], first()[HEAD]
    w: Layers = {
        "w1": body[:-HIDDEN].reshape(HIDDEN, FEATURES),
        "b1": body[-HIDDEN:],
        "w2": head[:-CLASSES].reshape(CLASSES, HIDDEN),
        "b2": head[-CLASSES:],
    }
    one, zero = np.ones(HIDDEN), np.zeros(HIDDEN)
    norms: list[Layers] = [{"gamma": one, "beta": zero, "mean": zero, "var": one} for _ in CLIENTS]
    for _, cohort in federation.cohorts:
        sent = []
        for k in cohort:
            here, norm = w, norms[k]
            for _ in range(STEPS):
                _, travels, stays, statistics = normalised(here, norm, k)
                here = {name: part - RATE * travels[name] for name, part in here.items()}
                norm = {name: norm[name] - RATE * part for name, part in stays.items()} | statistics
            sent.append(here)
            norms[k] = norm
        w = {name: federation.mean(cohort, [part[name] for part in sent]) for name in w}
    common = np.concatenate([w["w1"].ravel(), w["b1"], one, zero, w["w2"].ravel(), w["b2"]])
    return common, [used(w, norms[k], k) for k in CLIENTS]


PAPERS: dict[str, Callable[..., Outcome]] = {"fedper": fedper, "fedrep": fedrep, "fedbn": fedbn}
CASES: list[tuple[str, dict[str, Any]]] = [
    ("fedper", {}),
    ("fedper", {"head": ["0"]}),
    ("fedrep", {}),
    ("fedrep", {"head_steps": 9}),
    ("fedrep", {"head": ["0"], "head_steps": 2}),
    ("fedbn", {}),
]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return PROBLEM.write(tmp_path_factory.mktemp("heads"))


@pytest.mark.parametrize("federation", FEDERATIONS, ids=str)
@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_it_is_the_loop_of_the_paper(shards: Path, name: str, options: dict[str, Any], federation: Federation) -> None:
    """The part that travels beside the first head, and the loss of every client's own head in it."""
    expected, losses = PAPERS[name](federation, **options)
    table = oracle.job(shards, {"name": name, **options}, **federation.sections)
    if name == "fedbn":
        table["local"]["batch"] = 0
        run = trained(table)
        assert not run.model[1].running_mean.any()  # a client's statistics are no part of what everybody shares
    else:
        run = oracle.trained(table, hidden=True)
    np.testing.assert_allclose(oracle.vector(run.model), expected, rtol=0, atol=1e-8)
    scores = run.lines[-1]["evaluation"]
    assert "clients" not in scores  # nobody uses the shared part alone
    assert scores["personal"]["loss"]["mean"] == pytest.approx(np.mean(losses), abs=1e-8)
    assert scores["personal"]["loss"]["worst_tenth"] == pytest.approx(max(losses), abs=1e-8)


def test_the_gradient_through_normalisation_is_the_slope_of_the_loss() -> None:
    """fedbn above is only as good as its gradient: central differences."""
    random = np.random.default_rng(3)
    shapes = {"w1": (HIDDEN, FEATURES), "b1": (HIDDEN,), "w2": (CLASSES, HIDDEN), "b2": (CLASSES,)}
    w = {name: random.normal(size=shape) for name, shape in shapes.items()}
    norm = {name: random.uniform(0.5, 1.5, HIDDEN) for name in ("gamma", "beta", "mean", "var")}
    _, travels, stays, _ = normalised(w, norm, 1)
    for part, gradients in ((w, travels), (norm, stays)):
        for name, gradient in gradients.items():
            for place in np.ndindex(gradient.shape):
                middle, around = part[name][place], []
                for shift in (1e-5, -1e-5):
                    part[name][place] = middle + shift
                    around.append(normalised(w, norm, 1)[0])
                part[name][place] = middle
                assert gradient[place] == pytest.approx((around[0] - around[1]) / 2e-5, abs=1e-8)


@pytest.mark.parametrize(("name", "private"), [("fedper", "3."), ("fedrep", "3."), ("fedbn", "1.")])
def test_what_stays_is_not_on_the_wire(shards: Path, name: str, private: str) -> None:
    """Down come the header and the other tensors, each padded to whole cache lines; up goes as much less."""

    def run(strategy: str) -> fedmpi.Run:
        return trained(oracle.job(shards, {"name": strategy}, local={"batch": 0}, rounds=1, threads=1))

    everything, less = run("fedavg"), run(name)
    sizes = {
        part: 64 * -(-tensor.nbytes // 64)
        for part, tensor in everything.model.state_dict().items()
        if tensor.is_floating_point()
    }
    saved = sum(size for part, size in sizes.items() if part.startswith(private))
    one, other = (found.lines[0]["bytes"] for found in (less, everything))
    assert one["down"] == sum(sizes.values()) - saved + 8 * (HEADER + 1)  # BatchNorm's count
    assert other["up"] - one["up"] == saved > 0
