"""Models of flat examples: published sizes, and what they compute."""

import pytest
import torch

from fedmpi.job import Component, JobError
from fedmpi.models import MODELS
from fedmpi.models.dense import linear, logistic, mlp


def parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_the_2nn_has_its_published_size() -> None:
    assert parameters(mlp((1, 28, 28), 10)) == 199_210


def test_logistic_regression_on_mnist_has_its_published_size() -> None:
    assert parameters(logistic((1, 28, 28), 10)) == 7_850


def test_linear_is_a_line() -> None:
    model = linear((3,), 1)
    model.load_state_dict({"output.weight": torch.tensor([[1.0, 2.0, 3.0]]), "output.bias": torch.tensor([4.0])})
    assert model(torch.tensor([[1.0, 10.0, 100.0], [0.0, 0.0, 0.0]])).tolist() == [[325.0], [4.0]]


@pytest.mark.parametrize("shape", [(), (1,), (7,), (2, 3), (1, 4, 5)])
def test_an_example_may_have_any_shape(shape: tuple[int, ...]) -> None:
    for model in (linear(shape, 2), logistic(shape, 2), mlp(shape, 2)):
        assert model(torch.rand(6, *shape)).shape == (6, 2)


def test_without_hidden_layers_it_is_logistic_regression() -> None:
    assert parameters(mlp((9,), 4, hidden=())) == parameters(logistic((9,), 4))


@pytest.mark.parametrize("activation", ["relu", "gelu", "tanh", "sigmoid"])
def test_the_activation_is_what_was_asked_for(activation: str) -> None:
    model = mlp((2,), 1, hidden=(3,), activation=activation)
    x = torch.randn(5, 2)
    state = model.state_dict()
    function = torch.nn.functional.gelu if activation == "gelu" else getattr(torch, activation)
    inner = function(x @ state["hidden1.weight"].T + state["hidden1.bias"])
    torch.testing.assert_close(model(x), inner @ state["output.weight"].T + state["output.bias"])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"hidden": [10, 0]}, r"model: mlp: hidden is \[10, 0\]"),
        ({"hidden": "wide"}, r"model\.hidden"),
        ({"activation": "step"}, r"model\.activation.*'relu', 'gelu', 'tanh' or 'sigmoid'"),
    ],
)
def test_what_cannot_be_is_refused(given: dict[str, object], words: str) -> None:
    with pytest.raises(JobError, match=words):
        MODELS.choose(Component(name="mlp", **given), shape=(4,), outputs=2)
