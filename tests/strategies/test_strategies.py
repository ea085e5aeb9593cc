"""What every strategy promises, and what the server makes of a mean."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from fedmpi.aggregation import ReducePath, pipeline
from fedmpi.comm import Solo
from fedmpi.flow import State
from fedmpi.job import Aggregation, Component, JobError
from fedmpi.optim import OPTIMIZERS, optimizer
from fedmpi.strategies import STRATEGIES, ServerStep, Strategy
from tests import toy
from tests.crossings import add, passage_of
from tests.strategies import cases

SHARDS = toy.blobs([11, 4, 23, 1, 8])
TORCH = {name.lower(): kind for name, kind in vars(torch.optim).items() if isinstance(kind, type)}
every = pytest.mark.parametrize("strategy", STRATEGIES)
every_model = pytest.mark.parametrize("model", toy.MODELS)
every_pair = pytest.mark.parametrize(("strategy", "model"), cases.PAIRS)


def crossed(rig: toy.Rig, clients: list[int], weights: str = "examples") -> tuple[torch.Tensor, dict[str, float]]:
    """One round's mean and sums, all on one rank."""
    stages = pipeline(Aggregation.model_validate({"weights": weights}), SHARDS.largest, len(clients))
    path = ReducePath(Solo(), stages, rig.layout, torch.device("cpu"))
    sizes = SHARDS.sizes(np.array(clients))
    passage = passage_of(rig.layout, sizes, round=rig.state.round)
    path.begin(passage)
    for place, client in enumerate(clients):
        add(path, rig.learned(client, rig.state.round), passage, place)
    result = path.collect(passage, torch.zeros(1))
    assert result is not None
    return result


@every
def test_it_speaks_the_words_of_weighting(strategy: str) -> None:
    chosen = STRATEGIES[strategy](server=None)
    assert chosen.down >= 1
    assert len(chosen.up) >= 1
    assert {*chosen.up, *chosen.sums.values()} <= {"job", "examples", "uniform", "none"}


def test_the_local_rules_are_those_without_a_server_step_memory_or_planes_of_their_own() -> None:
    rules = {"fedavg", "fedsgd", "fedprox", "feddecorr", "fine-tuning", "per-fedavg"}
    assert {name for name in STRATEGIES if STRATEGIES[name](server=None).local_rule} == rules
    assert type("Own", (Strategy,), {"loss": print})(server=None).local_rule
    for part in ({"step": print}, {"stays": print}, {"memory": {"a": "model"}}, {"sums": {"a": "job"}}, {"down": 2}):
        assert not type("Own", (Strategy,), part)(server=None).local_rule


@every_pair
def test_a_result_fills_its_planes_and_names_its_sums(strategy: str, model: str) -> None:
    rig = toy.rig(toy.made(model), SHARDS, strategy=strategy)
    rig.state.crossing = rig.strategy.passes - 1
    rig.train(0)[0].rows.fill_(float("nan"))  # a client before it left something there
    learned, _ = rig.train(2)
    assert torch.isfinite(learned.rows).all()
    assert learned.steps > 0
    assert np.isfinite(learned.loss)


@every_pair
def test_a_client_without_examples_changes_nothing(strategy: str, model: str) -> None:
    empty = toy.Toy([*SHARDS.pairs[:2], tuple(part[:0] for part in SHARDS.pairs[0])])
    rig = toy.rig(toy.made(model), empty, strategy=strategy)
    before = rig.state.planes.clone()
    rig.state.crossing = rig.strategy.passes - 1
    learned, _ = rig.train(2)
    assert not rig.layout.planes(learned.rows).any()
    assert torch.isfinite(learned.rows).all()
    assert torch.equal(rig.state.planes, before)


@every_pair
def test_a_mean_of_zero_changes_nothing(strategy: str, model: str) -> None:
    rig = toy.rig(toy.made(model), SHARDS, strategy=strategy)
    before = rig.state.planes.clone()
    sums = dict.fromkeys(("weight", "clients", *rig.layout.sums), 0.0)
    rig.strategy.step(rig.state, torch.zeros(rig.layout.up, rig.layout.size, dtype=rig.layout.dtype), sums)
    assert torch.equal(rig.state.planes, before)


@every_pair
def test_rounds_lower_the_loss(strategy: str, model: str) -> None:
    """That of the common model, or the mean of the clients' own where there is none."""
    tables = cases.over(strategy, {"lr": 0.1})
    rig = toy.rig(toy.made(model), SHARDS, tables["local"], strategy, tables["server"])
    clients = [0, 1, 2, 4]

    def loss() -> float:
        losses = []
        for client in clients:
            rig.engine.begin()
            if rig.strategy.common:
                x, y = SHARDS.pooled()
            else:
                rig.engine.personal(client)
                x, y = SHARDS.train(client)
            rig.flat.model.eval()
            with torch.no_grad():
                losses.append(float(torch.nn.functional.cross_entropy(rig.flat.model(x), y)))
        return float(np.mean(losses))

    first = loss()
    for _ in range(6):
        for crossing in range(rig.strategy.passes):
            rig.state.crossing = crossing
            rig.strategy.step(rig.state, *crossed(rig, clients))
        rig.state.crossing = 0
        rig.state.round += 1
    assert loss() < first


@every
def test_what_home_keeps_is_in_its_state(strategy: str) -> None:
    """A server that is loaded with another's state goes on as that one: checkpoints may count on it."""
    tables = cases.over(strategy, {"lr": 0.1})
    made = [
        toy.rig(toy.made("normed"), SHARDS, tables["local"], strategy, {"lr": 0.1} | tables["server"]) for _ in range(2)
    ]
    went, late = made
    mean = torch.randn(went.layout.up, went.layout.size, dtype=went.layout.dtype)
    sums = dict.fromkeys(("weight", "clients", *went.layout.sums), 1.5)
    for rig in (went, late):
        rig.state.crossing = rig.strategy.passes - 1
    went.strategy.step(went.state, mean.clone(), sums)
    late.state.buffer.copy_(went.state.buffer)
    late.strategy.load({name: value.clone() for name, value in went.strategy.state().items()})
    for rig in (went, late):
        rig.strategy.step(rig.state, mean.clone() / 3, sums)
    assert torch.equal(went.state.buffer, late.state.buffer)


@every_model
def test_fedavg_with_one_client_is_that_client_s_model(model: str) -> None:
    rig = toy.rig(toy.made(model), SHARDS)
    mean, sums = crossed(rig, [2])
    local = rig.flat.values.clone()
    rig.strategy.step(rig.state, mean, sums)
    torch.testing.assert_close(rig.state.received, local, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("weights", ["examples", "uniform"])
def test_fedavg_is_the_weighted_mean_of_the_clients_models(weights: str) -> None:
    rig = toy.rig(toy.made("normed"), SHARDS, weights=weights)
    clients = [0, 1, 2, 4]
    models = []
    for client in clients:
        rig.learned(client)
        models.append(rig.flat.values.numpy().copy())
    shares = [len(SHARDS.train(client)[1]) if weights == "examples" else 1 for client in clients]
    rig.strategy.step(rig.state, *crossed(rig, clients, weights))
    np.testing.assert_allclose(rig.state.received.numpy(), np.average(models, axis=0, weights=shares), rtol=1e-12)


@pytest.mark.parametrize("model", ["linear", "mlp"])
def test_fedsgd_over_all_clients_is_gradient_descent_on_the_pooled_data(model: str) -> None:
    module = toy.made(model).double()
    rig = toy.rig(copy.deepcopy(module), SHARDS, {"lr": 0.5, "batch": 0}, strategy="fedsgd")
    x, y = (part.numpy() for part in SHARDS.pooled())
    layers = [module] if model == "linear" else [module[0], module[2]]
    weights = [(layer.weight.detach().numpy().copy(), layer.bias.detach().numpy().copy()) for layer in layers]
    for _ in range(20):
        rig.strategy.step(rig.state, *crossed(rig, list(range(SHARDS.clients))))
        rig.state.round += 1
        weights = descended(weights, x, y, 0.5)
    for (weight, bias), layer in zip(weights, ["0", "2"], strict=False):
        prefix = "" if model == "linear" else f"{layer}."
        for name, expected in [(f"{prefix}weight", weight), (f"{prefix}bias", bias)]:
            got = rig.state.received[rig.flat.slices[name]].numpy()
            np.testing.assert_allclose(got, expected.ravel(), rtol=1e-6, atol=1e-9)


Weights = list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]


def descended(weights: Weights, x: np.ndarray[Any, Any], y: np.ndarray[Any, Any], lr: float) -> Weights:
    """One step of gradient descent on softmax regression, or on one hidden tanh layer before it, by NumPy."""
    hidden = [x]
    for weight, bias in weights[:-1]:
        hidden.append(np.tanh(hidden[-1] @ weight.T + bias))
    logits = hidden[-1] @ weights[-1][0].T + weights[-1][1]
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    error = odds / odds.sum(axis=1, keepdims=True)
    error[np.arange(len(y)), y] -= 1
    error /= len(y)
    stepped: Weights = []
    for (weight, bias), below in zip(reversed(weights), reversed(hidden), strict=True):
        stepped.insert(0, (weight - lr * error.T @ below, bias - lr * error.sum(axis=0)))
        error = (error @ weight) * (1 - below**2)
    return stepped


def test_fedsgd_is_fedavg_with_one_full_batch_step() -> None:
    first = toy.rig(toy.made("mlp"), SHARDS, {"l1": 0.01, "l2": 0.1}, strategy="fedsgd")
    second = toy.rig(toy.made("mlp"), SHARDS, {"l1": 0.01, "l2": 0.1, "batch": 0, "epochs": 1})
    for client in range(SHARDS.clients):
        torch.testing.assert_close(first.learned(client), second.learned(client), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("local", "field"),
    [
        ({"batch": 10}, "local.batch"),
        ({"epochs": 5}, "local.epochs"),
        ({"steps": 7}, "local.steps"),
        ({"optimizer": "adam"}, "local"),
        ({"optimizer": {"momentum": 0.9}}, "local"),
        ({"clip": 1.0}, "local"),
    ],
)
def test_fedsgd_refuses_what_it_would_ignore(local: dict[str, Any], field: str) -> None:
    from fedmpi.job import read

    job = read({"rounds": 1, "data": {"shards": "d"}, "model": "linear", "strategy": "fedsgd", "local": local})
    with pytest.raises(JobError, match=rf"^{field}") as refused:
        STRATEGIES["fedsgd"](server=None).check(job)
    assert "fedsgd" in str(refused.value)


@pytest.mark.parametrize("local", [{}, {"batch": 0}, {"epochs": 1}, {"steps": 1}, {"lr": 3.0, "l2": 0.1}])
def test_fedsgd_takes_what_it_means(local: dict[str, Any]) -> None:
    from fedmpi.job import read

    job = read({"rounds": 1, "data": {"shards": "d"}, "model": "linear", "strategy": "fedsgd", "local": local})
    local = STRATEGIES["fedsgd"](server=None).check(job).local
    assert (local.batch, local.epochs, local.steps, local.lr) == (0, 1, None, job.local.lr)


@every
def test_an_option_that_it_has_not_is_refused(strategy: str) -> None:
    with pytest.raises(JobError, match=rf"strategy\.nonsense: is not an option of {strategy}"):
        STRATEGIES.choose(Component(name=strategy, nonsense=1), server=None)


# The server's step.


def held(size: int = 10, dtype: torch.dtype = torch.float64) -> State:
    state = State(0, size, 1, dtype)
    state.planes.copy_(torch.randn(1, size, generator=torch.Generator().manual_seed(1)))
    return state


def means(size: int = 10, count: int = 5, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(2)
    return [torch.randn(size, generator=random).to(dtype) for _ in range(count)]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_server_step_is_torch_s_with_the_opposite_of_the_mean_as_gradient(name: str) -> None:
    state = held()
    server = ServerStep(optimizer(Component(name=name), "server.optimizer"), 0.3)
    server.begin(state, slice(0, 7))
    parameter = torch.nn.Parameter(state.planes[0, :7].clone())
    behind = state.planes[0, 7:].clone()
    theirs = TORCH[name]([parameter], lr=0.3)
    for mean in means():
        parameter.grad = -mean[:7]
        theirs.step()
        behind += mean[7:]  # averaged: an adaptive step would make a variance negative
        server.step(mean.clone())
    torch.testing.assert_close(state.planes[0, :7], parameter.detach(), rtol=1e-6, atol=1e-12)
    assert torch.equal(state.planes[0, 7:], behind)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_server_resumed_steps_with_the_same_bits(name: str) -> None:
    state = held()
    server = ServerStep(optimizer(Component(name=name), "server.optimizer"), 0.3)
    server.begin(state, slice(0, 7))
    for mean in means(count=3):
        server.step(mean.clone())
    later = held()
    later.planes.copy_(state.planes)
    resumed = ServerStep(optimizer(Component(name=name), "server.optimizer"), 0.3)
    resumed.begin(later, slice(0, 7))
    resumed.load({key: value.clone() for key, value in server.state().items()})
    for mean in means(count=4):
        server.step(mean.clone())
        resumed.step(mean.clone())
    assert torch.equal(later.planes, state.planes)


def test_a_server_without_a_begin_has_no_state() -> None:
    assert ServerStep(optimizer(Component(name="adam"), "server.optimizer"), 1.0).state() == {}
