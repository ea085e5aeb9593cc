"""Laws of every model in the registry."""

import pytest
import torch
from torch import nn

from fedmpi.flat import FlatModel
from fedmpi.job import Component, JobError
from fedmpi.models import MODELS

SHAPES = dict.fromkeys(MODELS, (1, 20, 24)) | {"char-lstm": (12,)}
EVERY = pytest.mark.parametrize("name", MODELS)


def made(name: str, outputs: int = 3, **given: object) -> nn.Module:
    torch.manual_seed(0)
    return MODELS.choose(Component(name=name, **given), shape=SHAPES[name], outputs=outputs)


def examples(name: str, count: int) -> torch.Tensor:
    return torch.randint(3, (count, 12)) if name == "char-lstm" else torch.rand(count, *SHAPES[name])


@EVERY
def test_an_example_has_its_outputs_whatever_the_batch(name: str) -> None:
    model, x = made(name).eval(), examples(name, 5)
    together = model(x)
    assert together.shape == ((5, 12, 3) if name == "char-lstm" else (5, 3))
    alone = torch.cat([model(x[place : place + 1]) for place in range(5)])
    torch.testing.assert_close(alone, together)


@EVERY
def test_the_loss_reaches_every_parameter(name: str) -> None:
    model = made(name)
    model(examples(name, 8)).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


@EVERY
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_flat_it_is_the_same_model(name: str, dtype: torch.dtype) -> None:
    x = examples(name, 4)
    x = x if name == "char-lstm" else x.to(dtype)
    before = made(name).to(dtype)(x)
    flat = FlatModel(made(name), dtype=dtype)
    assert torch.equal(flat.model(x), before)
    flat.values.zero_()
    assert not flat.model(x).any()


@EVERY
def test_its_seed_fixes_how_it_begins(name: str) -> None:
    first, second = made(name).state_dict(), made(name).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


@EVERY
def test_it_says_what_it_is_and_every_option_has_a_default(name: str) -> None:
    assert MODELS[name].__doc__
    assert all(default is not ... for _, default in MODELS.options(name).values())


@EVERY
def test_an_unknown_option_is_refused(name: str) -> None:
    with pytest.raises(JobError, match=r"model\.depth: is not an option"):
        made(name, depth=3)
