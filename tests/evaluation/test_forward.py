"""Scoring leaves a model as it was."""

import pytest
import torch
from torch import nn

from fedmpi.evaluation import Regression
from fedmpi.evaluation.forward import frozen, outputs


def modes(model: nn.Module) -> list[bool]:
    return [module.training for module in model.modules()]


@pytest.mark.parametrize("training", [True, False])
def test_every_module_gets_its_mode_back(training: bool) -> None:
    model = nn.Sequential(nn.BatchNorm1d(2), nn.Dropout(), nn.Linear(2, 1)).train(training)
    model[0].eval()  # a person froze it
    before = modes(model)
    with frozen(model):
        assert not any(modes(model))
        assert not model(torch.rand(3, 2)).requires_grad
    assert modes(model) == before
    with pytest.raises(ZeroDivisionError), frozen(model):
        raise ZeroDivisionError
    assert modes(model) == before


def test_what_is_random_or_counts_stands_still() -> None:
    model = nn.Sequential(nn.BatchNorm1d(2), nn.Dropout(), nn.Linear(2, 1))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    x, drawn = torch.rand(9, 2), torch.get_rng_state()
    with frozen(model):
        list(outputs(model, Regression(), x, 4, "cpu"))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert torch.equal(drawn, torch.get_rng_state())


def test_a_model_scored_can_be_trained_on() -> None:
    model = nn.Linear(2, 1)
    with frozen(model):
        made = torch.cat(list(outputs(model, Regression(), torch.rand(5, 2), 2, "cpu")))
    assert made.shape == (5, 1)
    model(torch.rand(3, 2)).sum().backward()
    assert model.weight.grad is not None
