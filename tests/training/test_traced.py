"""Recorded steps come to what eager ones come to; what no recording holds is taken as always."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fedmpi.strategies import STRATEGIES
from fedmpi.training import Sequential, Traced
from fedmpi.training.traced import single as single_module
from tests import toy
from tests.strategies import cases

SHARDS = toy.blobs([10, 4, 23, 2, 8])
ROUNDS = 4


def engine(kind: Callable[..., Any]) -> Callable[..., Any]:
    """An engine of a kind, for a rig; `made` holds the last one."""

    def make(*given: Any, **named: Any) -> Any:
        made.append(kind(*given, **named))
        return made[-1]

    made: list[Any] = []
    make.made = made  # type: ignore[attr-defined]
    return make


def trained(model: nn.Module, kind: Callable[..., Any], rounds: int = ROUNDS, **others: Any) -> Any:
    """All updates, memories, losses and counts of some rounds of all clients, and the engine."""
    make = engine(kind)
    rig = toy.rig(model, SHARDS, engine=make, **others)
    seen: list[Tensor] = []
    for round in range(1, rounds + 1):
        rig.state.round = round
        for crossing in range(rig.strategy.passes):
            rig.state.crossing = crossing
            rig.engine.receive()
            mean = torch.zeros(rig.layout.up, rig.layout.size, dtype=rig.layout.dtype)
            for client in range(SHARDS.clients):
                learned, passage = rig.train(client)
                learned.save(rig.memory, passage)
                seen += [learned.rows.clone(), torch.tensor(learned.loss), learned.counts.clone()]
                mean += rig.layout.planes(learned.rows)[0] / SHARDS.clients
                if learned.keepsakes is not None:
                    seen.append(learned.keepsakes.clone())
            sums = {"weight": 1.0, "clients": 5.0} | dict.fromkeys(rig.layout.sums, 0.5)
            rig.strategy.step(rig.state, mean, sums)
        rig.state.crossing = 0
    return seen, make.made[0]  # type: ignore[attr-defined]


def same(one: list[Tensor], other: list[Tensor]) -> None:
    assert len(one) == len(other)
    for first, second in zip(one, other, strict=True):
        torch.testing.assert_close(second, first, rtol=0, atol=0, equal_nan=True)


def near(one: list[Tensor], other: list[Tensor], within: float = 1e-10) -> None:
    assert len(one) == len(other)
    for first, second in zip(one, other, strict=True):
        torch.testing.assert_close(second, first, rtol=within, atol=within, equal_nan=True)


def steps(engine: Any, fused: bool) -> list[Any]:
    return [step for key, step in engine.single.steps_made.items() if key[0] is fused]


@pytest.mark.parametrize(("strategy", "model"), cases.PAIRS)
@pytest.mark.parametrize("fuse", [False, True], ids=["unfused", "fused"])
def test_every_strategy_comes_to_the_same_by_recorded_steps(strategy: str, model: str, fuse: bool) -> None:
    table = cases.over(strategy, {"lr": 0.05, "batch": 4, "epochs": 2})
    others = {"strategy": strategy, "local": table["local"], "server": table["server"]}
    eager, _ = trained(toy.made(model), Sequential, **others)
    recorded, engine = trained(toy.made(model), partial(Traced, fuse=fuse), **others)
    (near if fuse else same)(eager, recorded)
    assert engine.single.counted()["parted"] == 0
    made = engine.single.steps_made
    if model == "cumulative":  # its statistics look at how many batches there were
        assert not any(made.values())
        return
    assert None not in made.values()
    assert engine.single.counted()["eager"] == 0
    if not STRATEGIES[strategy](server=None).whole_client:
        assert made


NEEDED = [
    {"l1": 0.01},
    {"l2": 0.1},
    {"clip": 0.5},
    {"optimizer": {"name": "sgd", "momentum": 0.9}},
    {"optimizer": "adam"},
]


@pytest.mark.parametrize("local", NEEDED, ids=lambda local: next(iter(local)))
def test_a_step_whose_gradient_is_needed_has_the_eager_one_s_bits(local: Mapping[str, Any]) -> None:
    eager, _ = trained(toy.made("mlp"), Sequential, local=local)
    recorded, engine = trained(toy.made("mlp"), Traced, local=local)
    same(eager, recorded)
    assert steps(engine, fused=False)
    assert not steps(engine, fused=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("local", [{"batch": 4}, {"batch": 4, "remainder": "merge"}, {"batch": 1}, {"batch": 0},
                                   {"batch": 4, "remainder": "drop"}], ids=str)  # fmt: skip
def test_batches_of_the_job_s_size_are_fused_and_no_others(local: Mapping[str, Any], dtype: torch.dtype) -> None:
    eager, _ = trained(toy.made("mlp"), Sequential, local=local, dtype=dtype)
    recorded, engine = trained(toy.made("mlp"), Traced, local=local, dtype=dtype)
    near(eager, recorded, 1e-5 if dtype == torch.float32 else 1e-10)
    sizes = {key[3][0][0] for key in engine.single.steps_made if key[0]}
    assert sizes == ({local["batch"]} if local["batch"] else set())


def test_which_bits_a_step_has_does_not_depend_on_who_came_before() -> None:
    """As on other ranks, which serve others first."""
    whole, _ = trained(toy.made("mlp"), Traced, rounds=1)
    rig = toy.rig(toy.made("mlp"), SHARDS, engine=engine(Traced))
    for client in reversed(range(SHARDS.clients)):
        rig.engine.receive()
        assert torch.equal(rig.train(client)[0].rows, whole[3 * client])


# Models with something that no recording holds.


class Box:
    """A number that nobody looks for."""

    at = 0


class Odd(nn.Module):
    """A small model with a peculiarity in `act`."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.head(self.act(torch.tanh(self.first(x))))
        return hidden

    def act(self, hidden: Tensor) -> Tensor:
        return hidden


class Drawn(Odd):
    def act(self, hidden: Tensor) -> Tensor:
        return hidden * (1.0 + 0.1 * random.random())


class DrawnByNumPy(Odd):
    def act(self, hidden: Tensor) -> Tensor:
        return hidden * float(np.random.rand())


class Branching(Odd):
    def act(self, hidden: Tensor) -> Tensor:
        return hidden if hidden.mean() > 0 else 2.0 * hidden


class Counting(Odd):
    calls = 0

    def act(self, hidden: Tensor) -> Tensor:
        self.calls += 1
        return hidden / (1 + self.calls)


class Laying(Odd):
    """A running mean that is laid anew each time."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(5))

    def act(self, hidden: Tensor) -> Tensor:
        self.mean = 0.9 * self.mean + 0.1 * hidden.detach().mean(0).to(self.mean.dtype)
        return hidden - self.mean


class Keeping(Odd):
    """A tensor in a plain attribute, changed in place."""

    def __init__(self) -> None:
        super().__init__()
        self.last = torch.zeros(5, dtype=torch.float64)

    def act(self, hidden: Tensor) -> Tensor:
        self.last.copy_(hidden.detach().mean(0))
        return hidden - self.last


class Listing(Odd):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[float] = []

    def act(self, hidden: Tensor) -> Tensor:
        self.seen.append(1.0)
        return hidden / len(self.seen)


class Picking(Odd):
    """Shapes that depend on values."""

    def act(self, hidden: Tensor) -> Tensor:
        return hidden - hidden[hidden > 0].sum()


class Made(Odd):
    """A tensor made anew of Python's numbers, not the same each time."""

    step = Box()

    def act(self, hidden: Tensor) -> Tensor:
        self.step.at = (self.step.at + 1) % 3
        return hidden * torch.tensor(1.0 + self.step.at, dtype=hidden.dtype)


ODD = [Drawn, DrawnByNumPy, Branching, Counting, Laying, Keeping, Listing, Picking, Made]


def begun() -> None:
    random.seed(1)
    np.random.seed(1)
    Made.step.at = 0
    torch.manual_seed(1)


@pytest.mark.parametrize("odd", ODD)
def test_a_step_that_no_recording_holds_is_taken_as_always(odd: Callable[[], nn.Module]) -> None:
    begun()
    _, engine = trained(odd(), Traced)
    assert set(engine.single.steps_made.values()) == {None}
    assert engine.single.counted()["eager"] > 0


@pytest.mark.parametrize("odd", [odd for odd in ODD if odd is not Made])  # whose box nobody puts back
def test_and_comes_to_the_same(odd: Callable[[], nn.Module]) -> None:
    begun()
    eager, _ = trained(odd(), Sequential)
    begun()
    recorded, _ = trained(odd(), Traced)
    same(eager, recorded)


class Constant(Odd):
    """A tensor made anew of Python's numbers, the same each time."""

    def act(self, hidden: Tensor) -> Tensor:
        return hidden * torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0], dtype=hidden.dtype)


class Masked(Odd):
    """A buffer, a plain attribute and a frozen parameter that are only read."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.tensor([1, 0, 1, 1, 1]))
        self.scale = torch.full((5,), 0.5, dtype=torch.float64)
        self.shift = nn.Parameter(torch.ones(5, dtype=torch.float64), requires_grad=False)

    def act(self, hidden: Tensor) -> Tensor:
        return hidden * self.mask * self.scale + self.shift


class Twice(Odd):
    """A weight with two products, and an input that is used twice."""

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.head(torch.tanh(self.first(x)) + self.first(2 * x))
        return hidden


class Unreached(Odd):
    """A parameter that the loss does not reach."""

    def __init__(self) -> None:
        super().__init__()
        self.idle = nn.Linear(5, 2)


class Deep(Odd):
    """Products of more than two dimensions, an embedding of places, attention by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.place, self.mix = nn.Embedding(4, 6), nn.Linear(6, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x[:, :, None] * self.place(torch.arange(4))
        weights = torch.softmax(self.mix(tokens) @ tokens.transpose(1, 2) / 6**0.5, -1)
        out: Tensor = self.head((weights @ tokens).mean(1))
        return out


@pytest.mark.parametrize("model", [Constant, Masked, Twice, Unreached, Deep])
@pytest.mark.parametrize("fuse", [False, True], ids=["unfused", "fused"])
def test_what_only_looks_peculiar_is_recorded(model: Callable[[], nn.Module], fuse: bool) -> None:
    begun()
    eager, _ = trained(model(), Sequential)
    begun()
    recorded, engine = trained(model(), partial(Traced, fuse=fuse))
    (near if fuse else same)(eager, recorded)
    assert engine.single.steps_made
    assert None not in engine.single.steps_made.values()


class Straight(torch.autograd.Function):
    """A gradient of one's own, bounded: not linear in what comes from behind."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor) -> Tensor:
        return hidden.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.clamp(-0.01, 0.01)


class Bounded(Odd):
    def act(self, hidden: Tensor) -> Tensor:
        out: Tensor = Straight.apply(hidden)  # type: ignore[no-untyped-call]
        return out


class Hooked(Odd):
    def __init__(self) -> None:
        super().__init__()
        self.first.weight.register_hook(lambda gradient: gradient.clamp(-0.01, 0.01))


@pytest.mark.parametrize("model", [Bounded, Hooked])
def test_gradients_that_are_not_linear_are_recorded_and_not_fused(model: Callable[[], nn.Module]) -> None:
    begun()
    eager, _ = trained(model(), Sequential)
    begun()
    recorded, engine = trained(model(), Traced)
    same(eager, recorded)
    assert set(steps(engine, fused=True)) == {None}
    assert None not in steps(engine, fused=False)


class Turning(Odd):
    """It becomes another model after some steps, and Python alone knows."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.box, self.after = Box(), after

    def act(self, hidden: Tensor) -> Tensor:
        return hidden if self.box.at < self.after else -3.0 * hidden


@pytest.mark.parametrize("fuse", [False, True], ids=["unfused", "fused"])
def test_a_model_that_turns_into_another_is_noticed_in_a_later_round(
    fuse: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(single_module, "APART", 32)
    begun()
    model = Turning(1)
    make = engine(partial(Traced, fuse=fuse))
    rig = toy.rig(model, SHARDS, engine=make, local={"batch": 1, "epochs": 2})
    rig.learned(2, round=1)
    model.box.at = 1
    wrong = rig.learned(2, round=1)
    right = rig.learned(2, round=2)
    [single] = [one.single for one in make.made]  # type: ignore[attr-defined]
    assert single.counted()["parted"] == 1
    assert not (single.fuses if fuse else single.records)
    begun()
    other = Turning(0)
    eager = toy.rig(other, SHARDS, engine=engine(Sequential), local={"batch": 1, "epochs": 2})
    near([eager.learned(2, round=2)], [right])
    assert not torch.allclose(wrong, eager.learned(2, round=1))
