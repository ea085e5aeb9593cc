"""Over one vector every optimiser is torch's own over the separate tensors."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from fedmpi import job
from fedmpi.flat import FlatModel
from fedmpi.job import Component, JobError
from fedmpi.optim import OPTIMIZERS, Optimizer, optimizer
from tests import toy

TORCH = {name.lower(): kind for name, kind in vars(torch.optim).items() if isinstance(kind, type)}
OTHER = {  # a value that differs from the default, for every option there is
    "alpha": 0.8,
    "amsgrad": True,
    "betas": (0.8, 0.95),
    "centered": True,
    "dampening": 0.2,
    "eps": 1e-3,
    "etas": (0.6, 1.1),
    "initial_accumulator_value": 0.2,
    "lambd": 1e-2,
    "lr_decay": 0.1,
    "momentum": 0.9,
    "momentum_decay": 0.01,
    "nesterov": True,
    "rho": 0.8,
    "step_sizes": (1e-4, 0.02),
    "t0": 2.0,
    "weight_decay": 0.05,
}
NEEDS = {"dampening": {"momentum": 0.9}, "nesterov": {"momentum": 0.9}}
VARIANTS: list[tuple[str, dict[str, Any]]] = [(name, {}) for name in OPTIMIZERS] + [
    (name, {option: OTHER[option], **NEEDS.get(option, {})})
    for name, factory in OPTIMIZERS.items()
    for option in job.options(factory)
]
every = pytest.mark.parametrize("name", OPTIMIZERS)
every_variant = pytest.mark.parametrize(("name", "options"), VARIANTS, ids=lambda part: str(part))


def gradients(size: int, steps: int = 5) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(2)
    return [torch.randn(size, generator=random) for _ in range(steps)]


def made(name: str, values: torch.Tensor, lr: float = 0.05, **options: Any) -> Optimizer:
    return OPTIMIZERS[name](**options)(values, lr)


@every_variant
def test_over_the_vector_it_is_torch_s_over_the_tensors(name: str, options: dict[str, Any]) -> None:
    model = toy.made("mlp").double()
    flat = FlatModel(copy.deepcopy(model), dtype=torch.float64)
    ours = made(name, flat.values[flat.trained], **options)
    theirs = TORCH[name](model.parameters(), lr=0.05, **options)
    x = torch.randn(8, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    y = torch.arange(8) % 3
    for _ in range(5):
        flat.write(flat.gradient(torch.nn.functional.cross_entropy(flat.model(x), y)))
        with torch.no_grad():
            ours.step(flat.grads)
        theirs.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        theirs.step()
    for mine, other in zip(flat.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-6, atol=1e-9)


@every_variant
def test_every_element_goes_its_own_way(name: str, options: dict[str, Any]) -> None:
    """So the vector may be cut anywhere, and a rank may one day hold a slice of it."""
    start = torch.randn(12, generator=torch.Generator().manual_seed(1))
    order = torch.randperm(12, generator=torch.Generator().manual_seed(4))
    straight, mixed = start.clone(), start[order]
    first, second = made(name, straight, **options), made(name, mixed, **options)
    for gradient in gradients(12):
        first.step(gradient)
        second.step(gradient[order])
    assert torch.equal(straight[order], mixed)
    assert not torch.equal(straight, start)


@every_variant
def test_padding_stays_zero(name: str, options: dict[str, Any]) -> None:
    values = torch.tensor([1.0, 0.0, -2.0])
    ours = made(name, values, **options)
    for gradient in gradients(3):
        gradient[1] = 0.0
        ours.step(gradient)
    assert values[1] == 0.0


@every_variant
def test_from_its_state_it_goes_on_with_the_same_bits(name: str, options: dict[str, Any]) -> None:
    values = torch.randn(9, generator=torch.Generator().manual_seed(1))
    ours = made(name, values, **options)
    for gradient in gradients(9, 3):
        ours.step(gradient)
    state = {key: value.clone() for key, value in ours.state().items()}
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    later = values.clone()
    other = made(name, later, **options)
    other.load(state)
    for gradient in gradients(9, 4):
        ours.step(gradient)
        other.step(gradient)
    assert torch.equal(values, later)


@every_variant
def test_restarted_it_is_as_new(name: str, options: dict[str, Any]) -> None:
    values = torch.randn(9, generator=torch.Generator().manual_seed(1))
    start = values.clone()
    ours = made(name, values, lr=0.3, **options)
    for gradient in gradients(9):
        ours.step(gradient)
    values.copy_(start)
    ours.restart(0.02)
    fresh_values = start.clone()
    fresh = made(name, fresh_values, lr=0.02, **options)
    for gradient in gradients(9):
        ours.step(gradient)
        fresh.step(gradient)
    assert torch.equal(values, fresh_values)


@every
def test_a_step_leaves_the_gradient_alone(name: str) -> None:
    values = torch.ones(4)
    ours = made(name, values)
    for gradient in gradients(4, 2):
        before = gradient.clone()
        ours.step(gradient)
        assert torch.equal(gradient, before)


@every_variant
def test_plain_means_that_a_step_is_minus_lr_times_gradient(name: str, options: dict[str, Any]) -> None:
    values = torch.randn(9, generator=torch.Generator().manual_seed(1))
    line = values.clone()
    ours = made(name, values, **options)
    for gradient in gradients(9):
        ours.step(gradient)
        line.add_(gradient, alpha=-0.05)
    assert ours.plain == torch.equal(values, line)


@every
def test_an_unknown_option_names_those_there_are(name: str) -> None:
    with pytest.raises(JobError) as refused:
        optimizer(Component(name=name, warmth=3), "local.optimizer")
    assert "local.optimizer.warmth" in str(refused.value)
    for option in job.options(OPTIMIZERS[name]):
        assert option in str(refused.value)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("sgd", {"momentum": -0.1}),
        ("sgd", {"nesterov": True}),
        ("adam", {"betas": [0.9, 1.5]}),
        ("adam", {"eps": -1.0}),
        ("rprop", {"etas": [1.5, 2.0]}),
    ],
)
def test_a_wrong_value_is_refused_when_the_job_is_read(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(JobError, match=r"server\.optimizer"):
        optimizer(Component(name=name, **options), "server.optimizer")


def test_options_come_from_toml_s_own_types() -> None:
    maker = optimizer(Component(name="adam", betas=[0.5, 0.9], eps=1), "local.optimizer")
    group = maker(torch.zeros(3), 0.1).torch.param_groups[0]
    assert group["betas"] == (0.5, 0.9)
    assert group["lr"] == 0.1
