"""The floor is federated averaging, by its definition."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parameters_to_vector

from fedmpi.bench.floor import Floor

SIZES = np.array([3, 7, 5, 4])


def columns() -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
    random = np.random.default_rng(0)
    return {
        client: (torch.from_numpy(random.normal(size=(size, 4))), torch.from_numpy(random.integers(0, 3, size)))
        for client, size in enumerate(SIZES.tolist())
    }


def model() -> nn.Module:
    torch.manual_seed(1)
    return nn.Linear(4, 3).double()


def floor(comm: Any = None, **given: Any) -> Floor:
    return Floor(comm, columns(), SIZES, model(), functional.cross_entropy, 0.5, **{"batch": 0, **given})


@pytest.mark.parametrize("epochs", [1, 3])
def test_whole_batches_are_gradient_descent_of_each_client(epochs: int) -> None:
    """Against softmax regression in NumPy."""
    first = model()
    weight, bias = first.weight.detach().numpy(), first.bias.detach().numpy()  # type: ignore[operator]
    mean = np.zeros(15)
    cohort = np.array([0, 1, 3])
    for client in cohort.tolist():
        x, y = (part.numpy() for part in columns()[client])
        w, b = weight.copy(), bias.copy()
        for _ in range(epochs):
            scores = np.exp(x @ w.T + b)
            wrong = (scores / scores.sum(1, keepdims=True) - np.eye(3)[y]) / len(y)
            w, b = w - 0.5 * wrong.T @ x, b - 0.5 * wrong.sum(0)
        mean += np.concatenate([w.ravel(), b]) * len(y) / SIZES[cohort].sum()
    mine = floor(epochs=epochs)
    mine.round(cohort)
    np.testing.assert_allclose(mine.received.numpy(), mean, rtol=1e-12)


class Stub:
    """One of several ranks; what it sends is kept, and comes back as the sum."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size

    def Allreduce(self, sent: Any, landed: Any) -> None:  # noqa: N802
        self.sent = sent.copy()
        landed[:] = sent


def test_ranks_sum_to_one_alone() -> None:
    cohort = np.arange(4)
    alone = floor()
    alone.round(cohort)
    stubs = [Stub(rank, 3) for rank in range(3)]
    for stub in stubs:
        floor(stub).round(cohort)
    np.testing.assert_allclose(sum(stub.sent for stub in stubs), alone.received.numpy(), rtol=1e-12)


@pytest.mark.parametrize(
    ("given", "steps"), [({"batch": 2}, 4), ({"batch": 2, "epochs": 2}, 8), ({"batch": 2, "steps": 5}, 5)]
)
def test_it_takes_as_many_steps_as_a_client_of_ours(given: dict[str, Any], steps: int) -> None:
    mine = floor(**given)
    taken = []
    step = mine.optimizer.step
    mine.optimizer.step = lambda: (taken.append(1), step())  # type: ignore[assignment,return-value]
    mine.round(np.array([1]))
    assert len(taken) == steps
    assert torch.equal(mine.received, parameters_to_vector(mine.model.parameters()))
