"""Every tensor of a model has one fate, and keeps its promise through a round."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fedmpi
from fedmpi.flat import FlatModel, keep_private
from fedmpi.flat.fates import RIDES, Fate, fates
from fedmpi.job import JobError
from tests import toy
from tests.flat.odd import Change, Odd, quietly, training
from tests.rounds.test_run import FIXED, on

FATES = {
    "weight": Fate.TRAINED,
    "own.bias": Fate.PRIVATE,
    "own.offset": Fate.PRIVATE,
    "frozen": Fate.CONSTANT,
    "large": Fate.CONSTANT,
    "mean": Fate.AVERAGED,
    "scale": Fate.AVERAGED,
    "idle": Fate.AVERAGED,
    "seen": Fate.SCRATCH,
    "places": Fate.SCRATCH,
    "steps": Fate.COUNTED,
    "begun": Fate.COUNTED,
    "ready": Fate.COUNTED,
    "state": Fate.COUNTED,
    "full": Fate.COUNTED,
}
STAYS = keep_private(["own"])


class Own(nn.Module):
    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.register_buffer("offset", torch.zeros(outputs))


class Every(Odd):
    """A tensor of each fate, and of each kind that may have it."""

    def __init__(self, change: Change = lambda self, x: None, features: int = 6, outputs: int = 3) -> None:
        super().__init__(change, features, outputs)
        self.own = Own(outputs)
        self.register_buffer("places", torch.arange(features), persistent=False)
        self.register_buffer("full", torch.zeros(RIDES, dtype=torch.int16))
        self.register_buffer("large", torch.zeros(RIDES + 1, dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.own.bias + self.own.offset


class Mixed(nn.Module):
    """One tensor at two places: without persistence and with, as a buffer and as a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 3)
        for name, tensor in {"mean": torch.zeros(6), "steps": torch.tensor(0)}.items():
            self.first.register_buffer(name, tensor, persistent=False)
            self.second.register_buffer(name, tensor)
        self.first.register_buffer("tied", self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            with torch.no_grad():
                self.second.steps.add_(1)
                self.second.mean.copy_(x.mean(0))
        out: Tensor = self.second(self.first(x))
        return out


MODELS: dict[str, Callable[[], nn.Module]] = {**toy.MODELS, "every": Every, "mixed": Mixed}


def everything(model: nn.Module) -> dict[str, Tensor]:
    """Every tensor of a module under each of its names, those that no state_dict has too."""
    tensors = dict(model.named_buffers(remove_duplicate=False)) | dict(model.named_parameters(remove_duplicate=False))
    assert tensors.keys() >= model.state_dict().keys()
    return tensors


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("stays", [lambda name: False, STAYS, lambda name: True], ids=["none", "own", "all"])
def test_every_tensor_has_one_fate_and_lies_where_it_says(name: str, stays: Callable[[str], bool]) -> None:
    model = MODELS[name]()
    table, tensors = fates(model, stays), everything(model)
    assert {id(tensors[each]) for each in table} == {id(tensor) for tensor in tensors.values()}
    assert len(table) == len({id(tensor) for tensor in tensors.values()})
    flat = FlatModel(model, stays)
    assert flat.fates == table
    start, trained = flat.shared.start, flat.trained
    moves = {each: at for each, at in flat.slices.items() if at not in flat.passing}
    lain = {
        Fate.TRAINED: {each for each, at in moves.items() if start <= at.start < trained.stop},
        Fate.AVERAGED: {each for each, at in moves.items() if at.start >= trained.stop},
        Fate.PRIVATE: {each for each, at in moves.items() if at.start < start},
        Fate.COUNTED: {owners[0].name for owners in flat.whole.buffers},
        Fate.CONSTANT: {place.name for _, place in flat.constants.places},
        Fate.SCRATCH: (flat.slices.keys() - moves.keys()) | {place.name for place in flat.scratch.loose},
    }
    assert lain == {fate: {each for each in table if table[each] is fate} for fate in Fate}


def test_the_fates_of_every_kind_of_tensor() -> None:
    assert fates(Every(), STAYS) == FATES
    assert set(FATES.values()) == set(Fate)
    mixed = fates(Mixed())
    assert [mixed[f"first.{name}"] for name in ("mean", "steps", "tied")] == [Fate.AVERAGED, Fate.COUNTED, Fate.TRAINED]


@pytest.fixture
def two(tmp_path: Path) -> dict[str, Any]:
    """Two clients of 4 and 12 examples, whole batches: two steps each a round."""
    random = np.random.default_rng(0)
    clients = {
        name: (random.normal(size=(size, 6)).astype(np.float32), np.arange(size) % 3)
        for name, size in (("a", 4), ("b", 12))
    }
    fedmpi.write_shards(tmp_path / "two", clients, holdout=0.0, classes=("a", "b", "c"))
    return FIXED | {
        "rounds": 1,
        "threads": 1,
        "data": {"shards": str(tmp_path / "two")},
        "model": "mine",
        "strategy": {"name": "fedper", "head": ["own"]},
        "local": {"lr": 0.1, "batch": 0, "epochs": 2, "engine": "sequential"},  # a step is seen as often as it is taken
        "evaluation": {"every": 0, "clients": False},
    }


def pairs(table: dict[str, Any]) -> list[tuple[Tensor, Tensor]]:
    shards = fedmpi.ShardSet.open(Path(table["data"]["shards"]))
    return [shards.train(client) for client in range(2)]


@pytest.mark.parametrize("ranks", [1, 3])
def test_a_round_does_to_each_tensor_what_its_fate_says(two: dict[str, Any], ranks: int) -> None:
    """Against torch by itself: each client's two steps from the first model, and their mean by examples."""
    seen: list[tuple[int, float]] = []

    def stir(self: Any, x: Tensor) -> None:
        seen.append((int(self.places.sum()), float(self.seen.sum())))
        self.mean.copy_(x.mean(0))
        self.own.offset.add_(1)
        self.seen.add_(1)
        self.places.add_(1)
        self.steps += 1
        self.full += 1
        self.begun.fill_(True)

    def model(shape: Any, outputs: int) -> nn.Module:
        return Every(training(quietly(stir)), *shape, outputs)

    still = two | {"local": {"lr": 1e-30, "batch": 0, "epochs": 1, "engine": "sequential"}}
    first: Tensor = fedmpi.train(still, model=model).model.weight.detach().clone()
    seen.clear()
    after: Any = on(ranks, two, model=model)[0].model
    assert set(seen) == {(15, 0.0), (21, 6.0)}  # scratch: at any client's first step, and at its second

    updates, means = [], []
    for x, y in pairs(two):
        weight, bias = first.clone().requires_grad_(), torch.zeros(3, requires_grad=True)
        means.append(x.mean(0))
        for step in (1, 2):
            outputs = (x - means[-1]) @ weight.T + bias + step
            gradients = torch.autograd.grad(nn.functional.cross_entropy(outputs, y.long()), [weight, bias])
            with torch.no_grad():
                weight.sub_(gradients[0], alpha=0.1)
                bias.sub_(gradients[1], alpha=0.1)
        updates.append(weight.detach() - first)
    right = {
        "weight": first + (4 * updates[0] + 12 * updates[1]) / 16,
        "own.bias": torch.zeros(3),  # as it was built: each client has its own
        "own.offset": torch.zeros(3),
        "frozen": torch.ones(6),
        "large": torch.zeros(RIDES + 1),
        "mean": (4 * means[0] + 12 * means[1]) / 16,
        "scale": torch.ones(6),
        "idle": torch.zeros(4),
        "seen": torch.zeros(6),
        "places": torch.arange(6),
        "steps": torch.tensor(4),
        "begun": torch.tensor(True),
        "ready": torch.tensor(True),
        "state": torch.tensor(0),
        "full": torch.full((RIDES,), 4),
    }
    tensors = everything(after)
    assert tensors.keys() == right.keys()
    assert (tensors["weight"] - first).abs().max() > 1e-3
    for name, tensor in tensors.items():
        close = 0 if FATES[name] in (Fate.CONSTANT, Fate.COUNTED, Fate.SCRATCH, Fate.PRIVATE) else 1e-5
        torch.testing.assert_close(tensor.detach(), right[name].to(tensor.dtype), atol=close, rtol=close, msg=name)


@pytest.mark.parametrize("ranks", [1, 3])
def test_a_private_tensor_is_each_client_s_own_from_round_to_round(
    two: dict[str, Any], tmp_path: Path, ranks: int
) -> None:
    said: list[tuple[int, float, bool]] = []

    def say(self: Any, x: Tensor) -> None:
        said.append((len(x), float(self.own.offset[0]), bool(self.own.bias.any())))
        self.own.offset.add_(len(x))

    def model(shape: Any, outputs: int) -> nn.Module:
        return Every(training(quietly(say)), *shape, outputs)

    table = two | {"rounds": 3, "local": {"lr": 0.1, "batch": 0, "epochs": 1, "engine": "sequential"}}
    on(ranks, table, model=model, out=tmp_path / "run")
    for size in (4, 12):
        rounds = [one for one in said if one[0] == size][-3:]  # the try-out's come before
        assert rounds == [(size, 0.0, False), (size, float(size), True), (size, 2.0 * size, True)]


@pytest.mark.parametrize("name", [name for name, fate in FATES.items() if fate is Fate.CONSTANT])
def test_a_constant_that_moves_is_refused_by_name(two: dict[str, Any], name: str) -> None:
    def move(self: Any, x: Tensor) -> None:
        getattr(self, name).add_(1)

    with pytest.raises(JobError, match=f"'{name}'"):
        fedmpi.train(two, model=lambda shape, outputs: Every(training(quietly(move)), *shape, outputs))


@pytest.mark.parametrize("ranks", [1, 3])
def test_a_tensor_at_two_places_is_part_of_the_model_where_one_of_them_is(two: dict[str, Any], ranks: int) -> None:
    """As the state_dict has it: averaged, counted, trained as the twin without a second name, alike at both places."""

    class Twin(Mixed):
        def __init__(self) -> None:
            super().__init__()
            del self.first.tied, self.first.mean, self.first.steps

    models = []
    for kind in (Mixed, Twin):
        torch.manual_seed(2)
        models.append(kind())
    two |= {"strategy": "fedavg"}
    run, twin = (on(ranks, two, model=lambda *given, m=model: copy.deepcopy(m))[0].model for model in models)
    means = [x.mean(0) for x, _ in pairs(two)]
    torch.testing.assert_close(run.second.mean, (4 * means[0] + 12 * means[1]) / 16)
    assert int(run.second.steps) == 4
    assert all(torch.equal(tensor, run.get_buffer(name)) for name, tensor in twin.named_buffers())
    assert all(torch.equal(tensor, dict(run.named_parameters())[name]) for name, tensor in twin.named_parameters())
    assert not torch.equal(run.second.weight, models[0].second.weight)
    for name, tensor in {"mean": run.second.mean, "steps": run.second.steps, "tied": run.second.weight}.items():
        assert torch.equal(run.first.get_buffer(name), tensor)
