"""The central score says what a client's does of the same examples, however they are cut into batches."""

import math
import warnings
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fedmpi.evaluation import Binary, Classification, NextCharacter, Regression, central, client_scores

CLASSES = ("a", "b", "c")
TASKS = {
    "classification": Classification(dtype=torch.float64, classes=CLASSES),
    "binary": Binary(dtype=torch.float64),
    "regression": Regression(dtype=torch.float64),
    "columns": Regression(dtype=torch.float64, target_shape=(2,)),
}


def drawn(kind: str, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Outputs, which an identity takes as its examples, and targets; a class or a column may be missing."""
    generator = torch.Generator().manual_seed(seed)
    width = {"classification": 3, "columns": 2}.get(kind, 1)
    outputs = (torch.randn(count, width, generator=generator, dtype=torch.float64) * 2).round() / 2
    if kind == "classification":
        return outputs, torch.randint(1 + seed % 3, (count,), generator=generator)
    if kind == "binary":
        return outputs, torch.randint(1 + seed % 2, (count,), generator=generator)
    y = (torch.randn(count, width, generator=generator) * 3).round() / 3
    if seed % 2:
        y[:, 0] = 0.1
    return outputs, y if kind == "columns" else y[:, 0]


def both(task: Any, x: Tensor, y: Tensor, batch: int, model: nn.Module | None = None) -> tuple[Tensor, Tensor]:
    model = model or nn.Identity()
    names = tuple(task.metrics)
    whole = central(model, task, x, y, names, batch, "cpu")
    assert list(whole) == ["loss", *names]
    return torch.tensor(list(whole.values()), dtype=torch.float64), client_scores(model(task.inputs(x)), y, task, names)


@settings(derandomize=True, database=None, deadline=None, max_examples=60)
@given(
    kind=st.sampled_from(sorted(TASKS)),
    count=st.integers(1, 20),
    batch=st.integers(1, 25),
    seed=st.integers(0, 2**32),
)
def test_it_agrees_with_a_client_that_holds_everything(kind: str, count: int, batch: int, seed: int) -> None:
    whole, client = both(TASKS[kind], *drawn(kind, count, seed), batch)
    torch.testing.assert_close(whole, client, rtol=1e-6, atol=1e-7, equal_nan=True)


@pytest.mark.parametrize("last", [False, True])
def test_of_characters_too(last: bool) -> None:
    torch.manual_seed(0)
    task, model = NextCharacter(CLASSES), nn.Embedding(3, 3)
    x, y = torch.randint(3, (7, 5), dtype=torch.uint8), torch.randint(3, (7, 5))
    whole, client = both(task, x, y[:, -1] if last else y, 2, model)
    torch.testing.assert_close(whole, client, rtol=1e-6, atol=1e-7)


def test_counts_are_not_rounded_to_float32() -> None:
    y = torch.zeros(100, dtype=torch.int64)
    x = torch.tensor([[1.0, 0.0, 0.0]] * 95 + [[0.0, 1.0, 0.0]] * 5)
    scores = central(nn.Identity(), Classification(classes=CLASSES), x, y, ("accuracy", "recall"), 30, "cpu")
    assert scores["accuracy"] == 0.95
    assert scores["recall"] == 0.95 / 2


def test_sums_of_squares_far_from_zero_keep_their_digits() -> None:
    torch.manual_seed(0)
    y = torch.randn(1000, dtype=torch.float64)
    near = central(nn.Identity(), TASKS["regression"], y[:, None] * 0.5, y, ("r2",), 100, "cpu")
    far = central(nn.Identity(), TASKS["regression"], y[:, None] * 0.5 + 1e6, y + 1e6, ("r2",), 100, "cpu")
    assert math.isclose(near["r2"], far["r2"], rel_tol=1e-9)


def test_a_class_without_examples_warns_nobody() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = central(nn.Identity(), Binary(), torch.rand(4, 1), torch.ones(4).long(), ("auroc", "f1"), 2, "cpu")
    assert math.isnan(scores["auroc"])


@pytest.mark.parametrize("kind", sorted(TASKS))
def test_a_model_of_nan_is_scored_alike(kind: str) -> None:
    x, y = drawn(kind, 6, 4)
    whole, client = both(TASKS[kind], x * math.nan, y, 4)
    torch.testing.assert_close(whole, client, equal_nan=True)
    assert whole.isnan().any()


def test_a_users_metric_sees_everything_at_once() -> None:
    seen = []

    class Mine(Regression):
        metrics = {**Regression.metrics, "worst": lambda outputs, y: seen.append(len(y)) or (outputs[:, 0] - y).max()}

    scores = central(nn.Identity(), Mine(), torch.arange(7.0)[:, None], torch.zeros(7), ("worst", "mse"), 3, "cpu")
    assert scores["worst"] == 6.0
    assert scores["mse"] == 13.0
    assert seen == [7]
