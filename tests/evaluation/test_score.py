"""What the journal is told of a model: finite numbers or None, alike for every client."""

import json
import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import nn

from fedmpi.evaluation import Classification, Regression, Scorer
from fedmpi.job import JobError

TASK = Classification(classes=("a", "b", "c"))
lawful = settings(derandomize=True, database=None, deadline=None, max_examples=80)


def scorer(metrics: tuple[str, ...] | None = ("accuracy", "auroc"), batch: int = 4, task: Any = TASK) -> Scorer:
    return Scorer(task, metrics, batch, "cpu")


def test_names_are_the_loss_and_what_was_asked_for() -> None:
    assert scorer(("f1", "accuracy")).names == ("loss", "f1", "accuracy")
    assert scorer(()).names == ("loss",)
    assert scorer(("loss", "f1", "f1")).names == ("loss", "f1")
    assert scorer(None).names == ("loss", "accuracy")
    assert scorer(None, task=Regression()).names == ("loss", "mse")


def test_an_unknown_metric_is_refused() -> None:
    words = r"evaluation\.metrics: 'acuracy' given; the task has loss, .*, auroc; did you mean 'accuracy'\?$"
    with pytest.raises(JobError, match=words):
        scorer(("f1", "acuracy"))


def test_no_examples_no_score() -> None:
    x, y = torch.rand(0, 3), torch.zeros(0, dtype=torch.int64)
    assert scorer().central(nn.Identity(), x, y) == {}
    row = scorer().client(nn.Identity(), x, y)
    assert row.dtype == np.float64
    assert np.isnan(row).tolist() == [True, True, True]


def test_both_ways_agree_and_undefined_is_none() -> None:
    x, y = torch.rand(9, 3), torch.full((9,), 2)
    whole = scorer().central(nn.Identity(), x, y)
    loss, accuracy, auroc = scorer().client(nn.Identity(), x, y)
    assert whole == {"loss": pytest.approx(loss), "accuracy": pytest.approx(accuracy), "auroc": None}
    assert math.isnan(auroc)
    assert json.loads(json.dumps(whole, allow_nan=False)) == whole


def test_a_diverged_model_is_told_without_nan() -> None:
    x, y = torch.full((5, 3), math.inf), torch.arange(5) % 3
    scores = scorer().central(nn.Identity(), x, y)
    assert scores["loss"] is None
    rows = np.stack([scorer().client(nn.Identity(), x, y), [math.inf, 0.1, 0.1], [2.0, 0.1, 0.1]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        json.dumps(scorer().summarise(rows), allow_nan=False)


def test_a_client_is_scored_alike_whoever_came_before() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm1d(8), nn.Linear(8, 3), nn.Dropout())
    clients = [(torch.rand(size, 8), torch.randint(3, (size,))) for size in (1, 5, 12)]
    forth = [scorer().client(model, x, y) for x, y in clients]
    back = [scorer().client(model, x, y) for x, y in reversed(clients)][::-1]
    assert np.array_equal(np.stack(forth), np.stack(back), equal_nan=True)
    assert all(module.training for module in model.modules())


@lawful
@given(
    arrays.arrays(
        np.float64,
        st.tuples(st.integers(0, 45), st.just(3)),
        elements=st.floats(-100, 100) | st.sampled_from([math.nan, math.inf]),
    )
)
def test_the_spread_over_clients(rows: np.ndarray) -> None:
    spread = scorer().summarise(rows)
    json.dumps(spread, allow_nan=False)
    if np.isnan(rows).all():
        assert spread == {}
        return
    assert list(spread) == ["loss", "accuracy", "auroc"]
    for place, (name, told) in enumerate(spread.items()):
        kept = sorted((score for score in rows[:, place].tolist() if not math.isnan(score)), reverse=name == "loss")
        if not kept:
            assert told == {"mean": None, "worst_tenth": None, "std": None}
            continue
        worst = kept[: math.ceil(len(kept) / 10)]
        for key, scores in (("mean", kept), ("worst_tenth", worst)):
            expected = math.fsum(scores) / len(scores) if math.inf not in scores else None
            assert told[key] == pytest.approx(expected, abs=1e-9), (name, key)
        if math.inf in kept:
            assert told["std"] is None
        else:
            assert told["std"] == pytest.approx(np.std(kept), abs=1e-9)
            mean, tenth = told["mean"], told["worst_tenth"]
            assert mean is not None
            assert tenth is not None
            assert tenth >= mean - 1e-9 if name == "loss" else tenth <= mean + 1e-9


def test_the_worst_of_eleven_clients_are_two() -> None:
    rows = np.stack([np.arange(11.0)] * 3, axis=1)
    spread = scorer().summarise(rows)
    assert spread["loss"]["worst_tenth"] == 9.5
    assert spread["accuracy"]["worst_tenth"] == 0.5
