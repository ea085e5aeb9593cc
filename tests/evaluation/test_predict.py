"""What a model says of examples that nobody has labelled."""

import numpy as np
import pytest
import torch
from torch import nn

from fedmpi.evaluation import Binary, Classification, NextCharacter, Regression, predictions


@pytest.mark.parametrize("batch", [1, 4, 100])
def test_of_classes(batch: int) -> None:
    torch.manual_seed(0)
    model, x = nn.Linear(5, 3), torch.rand(10, 5)
    made = predictions(model, Classification(classes=("a", "b", "c")), x, batch, "cpu")
    assert made["probability"].shape == (10, 3)
    assert np.allclose(made["probability"].sum(1), 1)
    assert np.array_equal(made["prediction"], model(x).detach().numpy().argmax(1))
    assert np.array_equal(made["prediction"], made["probability"].argmax(1))


def test_of_two_classes_there_is_a_probability_of_each() -> None:
    made = predictions(nn.Identity(), Binary(), torch.tensor([[-2.0], [0.5], [1.0]]), 2, "cpu")
    assert made["prediction"].tolist() == [0, 1, 1]
    assert np.allclose(made["probability"], [[0.880797, 0.119203], [0.377541, 0.622459], [0.268941, 0.731059]])


def test_of_numbers() -> None:
    x = torch.arange(6.0).reshape(3, 2)
    assert predictions(nn.Flatten(0), Regression(), x[:, :1], 2, "cpu")["prediction"].tolist() == [0.0, 2.0, 4.0]
    table = predictions(nn.Identity(), Regression(target_shape=(2,)), x, 2, "cpu")
    assert list(table) == ["prediction"]
    assert table["prediction"].tolist() == x.tolist()


def test_of_characters() -> None:
    model = nn.Embedding(3, 3)
    model.weight.data = torch.eye(3).roll(1, 1)  # after each character comes the next one
    made = predictions(model, NextCharacter(("a", "b", "c")), torch.tensor([[0, 1, 2], [2, 2, 0]]), 1, "cpu")
    assert made["prediction"].tolist() == [[1, 2, 0], [0, 0, 1]]


def test_a_task_that_does_not_say_gives_the_outputs() -> None:
    class Plain:
        name = "plain"
        metrics = {}

        def inputs(self, x: torch.Tensor) -> torch.Tensor:
            return x * 2

        def loss(self, outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return outputs.mean()

    made = predictions(nn.Identity(), Plain(), torch.ones(3, 2), 2, "cpu")
    assert made["prediction"].tolist() == [[2.0, 2.0]] * 3
