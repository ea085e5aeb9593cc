"""A task's losses count where its loss is of the same class, or of one before."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from fedmpi.flow import losses_of


class Neither:
    def loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        return outputs.mean()


class Both(Neither):
    def loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        return outputs.mean()

    def losses(self, outputs: Tensor, y: Tensor) -> Tensor:
        return outputs


class Renamed(Both):
    name = "renamed"


class OtherLoss(Both):
    def loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        return outputs.sum()


class OtherLosses(OtherLoss):
    def losses(self, outputs: Tensor, y: Tensor) -> Tensor:
        return outputs * len(outputs)


class Left(Both):
    losses = None


class Within:
    """Hands on everything to another task."""

    def __init__(self, task: Any) -> None:
        self.task = task

    def __getattr__(self, name: str) -> Any:
        return getattr(self.task, name)


@pytest.mark.parametrize(
    ("task", "counts"),
    [
        (Neither(), False),
        (Both(), True),
        (Renamed(), True),
        (OtherLoss(), False),
        (OtherLosses(), True),
        (Left(), False),
        (Within(Both()), True),
        (Within(Neither()), False),
    ],
)
def test_losses_count_beside_the_loss_they_are_of(task: Any, counts: bool) -> None:
    losses = losses_of(task)
    assert (losses is not None) == counts
    if losses is not None:
        outputs = torch.tensor([1.0, 3.0])
        assert losses(outputs, outputs).mean() == task.loss(outputs, outputs)


def test_a_loss_of_the_object_itself_comes_before_its_class() -> None:
    task = Both()
    task.loss = lambda outputs, y: outputs.sum()  # type: ignore[method-assign]
    assert losses_of(task) is None
    task.losses = lambda outputs, y: outputs  # type: ignore[method-assign]
    assert losses_of(task) is task.losses
