"""What a client learns is a plain PyTorch loop's, whoever was served before it."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fedmpi.flow import Client, key
from fedmpi.optim import OPTIMIZERS
from fedmpi.strategies import Strategy
from fedmpi.training import whole
from tests import toy
from tests.strategies import cases

SHARDS = toy.blobs([11, 4, 23, 1, 8])
TORCH = {name.lower(): kind for name, kind in vars(torch.optim).items() if isinstance(kind, type)}
every_model = pytest.mark.parametrize("name", toy.MODELS)


def by_hand(
    model: nn.Module, client: int, round: int = 1, seed: int = 7, batch: int = 4, epochs: int = 1, lr: float = 0.1,
    optimizer: str = "sgd", l1: float = 0.0, l2: float = 0.0, clip: float = math.inf, **options: Any,
) -> tuple[dict[str, Tensor], float]:  # fmt: skip
    """The loop that anybody would write: the changes of the model's tensors, and the mean training loss."""
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    x, y = SHARDS.train(client)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    steps = TORCH[optimizer](trained, lr=lr, **options)
    order = torch.Generator().manual_seed(key(seed, round, client))
    torch.manual_seed(key(seed, round, client, use=1))
    model.train()
    total = 0.0
    for _ in range(epochs):
        places = torch.randperm(len(y), generator=order) if 0 < batch < len(y) else torch.arange(len(y))
        for chosen in torch.split(places, batch or len(y)):
            steps.zero_grad()
            loss = nn.functional.cross_entropy(model(x[chosen]), y[chosen])
            total += float(loss.detach()) * len(chosen)
            loss.backward()
            with torch.no_grad():
                for parameter in trained:
                    assert parameter.grad is not None
                    parameter.grad += l2 * parameter + l1 * parameter.sign()
                norm = math.sqrt(sum(float((parameter.grad**2).sum()) for parameter in trained))
                for parameter in trained:
                    parameter.grad *= min(1.0, clip / norm)
            steps.step()
    after = model.state_dict()
    return {name: after[name] - before[name] for name in after}, total / (epochs * len(y))


def agree(rig: toy.Rig, wire: Tensor, changes: Mapping[str, Tensor]) -> None:
    """The update on the wire, tensor by tensor."""
    update = rig.layout.planes(wire)[0]
    names = dict(rig.flat.model.named_parameters()) | dict(rig.flat.model.named_buffers())
    expected = torch.zeros_like(update)
    for name, where in rig.flat.slices.items():
        assert name in names
        expected[where] = changes[name].flatten()
    torch.testing.assert_close(update, expected, rtol=1e-9, atol=1e-12)


@every_model
def test_one_client_one_epoch_of_sgd_is_the_plain_loop(name: str) -> None:
    model = toy.made(name).double()
    rig = toy.rig(copy.deepcopy(model), SHARDS)
    learned, _ = rig.train(2)
    changes, loss = by_hand(model, 2)
    agree(rig, learned.rows[0], changes)
    assert learned.loss == pytest.approx([loss], abs=1e-12)
    assert (learned.examples, learned.steps) == ([23], [6])


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimiser_is_the_plain_loop_s(optimizer: str) -> None:
    model = toy.made("mlp").double()
    rig = toy.rig(copy.deepcopy(model), SHARDS, {"optimizer": optimizer, "epochs": 2, "lr": 0.02})
    rig.learned(4)  # an optimiser that is not as new gives itself away
    changes, _ = by_hand(model, 2, optimizer=optimizer, epochs=2, lr=0.02)
    agree(rig, rig.learned(2), changes)


@pytest.mark.parametrize("penalty", [{"l2": 0.05}, {"l1": 0.02}, {"clip": 0.3}, {"l1": 0.02, "l2": 0.05, "clip": 0.3}])
@pytest.mark.parametrize("options", [{}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}])
def test_penalties_and_clip_are_the_plain_loop_s(penalty: dict[str, float], options: dict[str, Any]) -> None:
    model = toy.made("normed").double()
    local = {"epochs": 3, "batch": 5, **penalty, "optimizer": {"name": "sgd", **options}}
    rig = toy.rig(copy.deepcopy(model), SHARDS, local)
    changes, _ = by_hand(model, 2, epochs=3, batch=5, **penalty, **options)
    agree(rig, rig.learned(2), changes)


def test_decay_by_the_penalty_is_decay_by_sgd() -> None:
    penalty = toy.rig(toy.made("mlp"), SHARDS, {"l2": 0.1}).learned(2)
    option = toy.rig(toy.made("mlp"), SHARDS, {"optimizer": {"weight_decay": 0.1}}).learned(2)
    torch.testing.assert_close(penalty, option, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("batch", [0, 23, 100])
def test_a_full_batch_is_gradient_descent(batch: int) -> None:
    model = toy.made("mlp").double()
    rig = toy.rig(copy.deepcopy(model), SHARDS, {"batch": batch, "epochs": 3})
    changes, _ = by_hand(model, 2, batch=0, epochs=3)
    agree(rig, rig.learned(2), changes)


def test_the_schedule_multiplies_the_rate() -> None:
    model = toy.made("mlp").double()
    rig = toy.rig(copy.deepcopy(model), SHARDS, {"schedule": {"name": "linear"}})
    changes, _ = by_hand(model, 2, round=6, lr=0.1 * 15 / 20)
    agree(rig, rig.learned(2, round=6), changes)


@pytest.mark.parametrize(
    ("optimizer", "strategy", "name"),
    [
        (optimizer, strategy, name)
        for optimizer in ("sgd", "adam")
        for strategy, name in cases.PAIRS
        if strategy != "local" and cases.takes(strategy, {"lr": 0.1, "optimizer": optimizer})
    ],
)
def test_what_a_client_learns_does_not_depend_on_who_was_served_before(
    name: str, strategy: str, optimizer: str
) -> None:
    local = {"optimizer": optimizer}
    alone = toy.rig(toy.made(name), SHARDS, local, strategy)
    wire = alone.learned(2, round=3)
    busy = toy.rig(toy.made(name), SHARDS, local, strategy)
    for client, round in [(0, 3), (1, 2), (4, 3)]:
        busy.learned(client, round)
    torch.rand(5)
    busy.flat.model.eval()  # scored in between
    assert torch.equal(busy.learned(2, round=3), wire)
    assert not torch.equal(busy.learned(4, round=3), wire)


@every_model
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_padding_and_the_received_model_stay_as_they_were(name: str, optimizer: str) -> None:
    rig = toy.rig(toy.made(name), SHARDS, {"optimizer": optimizer, "l1": 0.1, "l2": 0.1})
    received = rig.state.received.clone()
    wire = rig.learned(2)
    padding = torch.ones(len(rig.flat.values), dtype=torch.bool)
    for where in rig.flat.slices.values():
        padding[where] = False
    assert not rig.layout.planes(wire)[0][padding].any()
    assert torch.equal(rig.state.received, received)


@pytest.mark.parametrize("client", [0, 3])
@pytest.mark.parametrize("wanted", [1, 9])
def test_steps_may_be_asked_for(client: int, wanted: int) -> None:
    rig = toy.rig(toy.made("mlp"), SHARDS, {"epochs": None, "steps": wanted})
    assert rig.train(client)[0].steps == wanted


def test_a_client_without_examples_learns_nothing() -> None:
    shards = toy.Toy([*SHARDS.pairs, (torch.zeros(0, 4).double(), torch.zeros(0, dtype=torch.int64))])
    rig = toy.rig(toy.made("mlp"), shards, {"optimizer": "adam"})
    rig.learned(2)
    learned, _ = rig.train(5)
    assert not rig.layout.planes(learned.rows).any()
    assert (learned.examples, learned.steps) == ([0], [0])
    assert np.isnan(learned.loss)


class Asks(Strategy):
    """Asks for the gradient over all examples, before and after the training."""

    asked: list[tuple[str, Tensor, Tensor]]

    def prepare(self, client: Client) -> None:
        self.asked = [("prepare", client.values.clone(), client.gradient().clone())]

    def result(self, client: Client) -> Mapping[str, Tensor | float]:
        self.asked.append(("result", client.values.clone(), client.gradient().clone()))
        return super().result(client)


@pytest.mark.parametrize("chunk", [1, 5, 1024])
@pytest.mark.parametrize("name", ["linear", "mlp", "frozen", "tied"])
def test_the_gradient_is_autograd_s_over_all_examples(name: str, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whole, "CHUNK", chunk)
    model = toy.made(name).double()
    rig = toy.rig(copy.deepcopy(model), SHARDS, {"l2": 0.2, "l1": 0.1}, strategy=Asks)
    rig.learned(2)
    strategy = rig.strategy
    assert isinstance(strategy, Asks)
    assert [when for when, _, _ in strategy.asked] == ["prepare", "result"]
    x, y = SHARDS.train(2)
    own = dict(model.named_parameters())
    for _, values, gradient in strategy.asked:
        with torch.no_grad():
            for tensor_name, where in rig.flat.slices.items():
                if tensor_name in own:
                    own[tensor_name].copy_(values[where].view(own[tensor_name].shape))
        model.zero_grad()
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        penalty = sum(0.1 * (parameter**2).sum() + 0.1 * parameter.abs().sum() for parameter in trained)
        (nn.functional.cross_entropy(model(x), y) + penalty).backward()
        for tensor_name, parameter in own.items():
            if parameter.requires_grad:
                assert parameter.grad is not None
                mine = gradient[rig.flat.slices[tensor_name]]
                torch.testing.assert_close(mine, parameter.grad.flatten(), rtol=1e-9, atol=1e-12)


class Pushes(Strategy):
    """A correction that says what it was given."""

    corrects = True
    given: list[tuple[Tensor, Tensor, Tensor]]

    def prepare(self, client: Client) -> None:
        self.given = []

    def correct(self, grads: Tensor, values: Tensor, received: Tensor, client: Client) -> None:
        self.given.append((grads.clone(), values.clone(), received.clone()))
        grads.add_(values - received, alpha=0.5).add_(0.25)


def test_a_correction_sees_and_changes_each_step_s_gradient() -> None:
    rig = toy.rig(toy.made("normed"), SHARDS, {"batch": 0, "epochs": 3}, strategy=Pushes)
    start = rig.state.received[rig.flat.trained].clone()
    wire = rig.learned(2)
    strategy = rig.strategy
    assert isinstance(strategy, Pushes)
    assert len(strategy.given) == 3
    values = start.clone()
    for grads, seen, received in strategy.given:
        assert torch.equal(received, start)
        torch.testing.assert_close(seen, values)
        values -= 0.1 * (grads + 0.5 * (values - start) + 0.25)
    torch.testing.assert_close(rig.layout.planes(wire)[0][rig.layout.trained], values - start)
