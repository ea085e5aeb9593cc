"""What tasks make of stored columns, what they ask of a model, and what they refuse."""

import sys
from functools import partial
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fedmpi.evaluation import TASKS, Binary, Classification, NextCharacter, Regression, Scorer
from fedmpi.job import Component, JobError

TWO = ("no", "yes")


def made(name: str, classes: tuple[str, ...] = TWO, **options: Any) -> Any:
    given = {"scale": 0.5, "dtype": torch.float64, "classes": classes}
    return TASKS.choose(Component(name=name, **options), **given)


@pytest.mark.parametrize("name", TASKS)
def test_it_is_called_what_it_is_listed_as(name: str) -> None:
    task = made(name)
    assert task.name == name
    assert TASKS[name].__doc__
    assert len(task.metrics) >= 2


@pytest.mark.parametrize("name", ["classification", "binary", "regression"])
@pytest.mark.parametrize("stored", [torch.uint8, torch.int16, torch.float32, torch.float64])
@pytest.mark.parametrize("wanted", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_inputs_are_stored_values_times_scale(
    name: str, stored: torch.dtype, wanted: torch.dtype, scale: float
) -> None:
    task = TASKS[name](scale=scale, dtype=wanted, classes=TWO)
    x = torch.tensor([[0, 3], [8, 255]]).to(stored)
    kept = x.clone()
    inputs = task.inputs(x)
    assert inputs.dtype == wanted
    assert inputs.tolist() == [[0, 3 * scale], [8 * scale, 255 * scale]]
    assert torch.equal(x, kept)  # mapped columns are shared by everybody


def test_characters_are_indices_and_not_scaled() -> None:
    inputs = made("next-character").inputs(torch.tensor([[1, 255]], dtype=torch.uint8))
    assert inputs.dtype == torch.int64
    assert inputs.tolist() == [[1, 255]]


def test_how_many_outputs_a_model_needs() -> None:
    assert made("classification", ("a", "b", "c")).outputs(("a", "b", "c")) == 3
    assert made("binary").outputs(TWO) == 1
    assert made("regression").outputs(()) == 1
    assert Regression(target_shape=(2, 3)).outputs(()) == 6
    assert made("next-character").outputs(TWO) == 2


@pytest.mark.parametrize(
    ("name", "classes", "words"),
    [
        ("classification", (), "needs at least two classes; the shard set has 0"),
        ("classification", ("one",), "needs at least two classes; the shard set has 1"),
        ("binary", ("a", "b", "c"), "takes two classes; the shard set has 3: try the task classification"),
        ("next-character", (), "needs the vocabulary as class names; the shard set has 0"),
    ],
)
def test_classes_that_do_not_fit_are_refused(name: str, classes: tuple[str, ...], words: str) -> None:
    with pytest.raises(JobError, match=f"task: {name}: {words}"):
        made(name, classes)


def test_losses_are_torchs_own_means() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(5, 3), torch.tensor([0, 2, 1, 1, 0])
    assert torch.equal(
        Classification(classes=("a", "b", "c")).loss(logits, labels.to(torch.int32)),
        functional.cross_entropy(logits, labels),
    )
    one, yes = torch.randn(5, 1), torch.tensor([0, 1, 1, 0, 1])
    torch.testing.assert_close(
        Binary().loss(one, yes), functional.binary_cross_entropy(one[:, 0].sigmoid(), yes.float())
    )
    assert torch.equal(Binary().loss(one[:, 0], yes), Binary().loss(one, yes))
    y = torch.randn(5, dtype=torch.float64)
    torch.testing.assert_close(Regression().loss(one, y), (one[:, 0] - y.float()).square().mean())
    table = torch.randn(5, 2)
    torch.testing.assert_close(Regression().loss(table + 2, table), torch.tensor(4.0))


def test_the_loss_of_characters() -> None:
    logits, y = torch.randn(4, 6, 3), torch.randint(3, (4, 6))
    task = NextCharacter(("a", "b", "c"))
    each = [functional.cross_entropy(logits[:, place], y[:, place]) for place in range(6)]
    torch.testing.assert_close(task.loss(logits, y), torch.stack(each).mean())
    torch.testing.assert_close(task.loss(logits, y[:, -1]), each[-1])


def batch(name: str, rows: int) -> list[tuple[Tensor, Tensor]]:
    """Outputs `(rows, ...)` and targets of a task, of each shape that it takes."""
    labels, numbers = partial(torch.randint, 3), partial(torch.randn, dtype=torch.float64)
    return {
        "classification": [(numbers(rows, 3), labels((rows,))), (numbers(rows, 3, 4), labels((rows, 4)))],
        "binary": [
            (numbers(rows, 1), torch.randint(2, (rows,))),
            (numbers(rows), torch.rand(rows)),
            (numbers(rows, 6), torch.randint(2, (rows, 2, 3))),
        ],
        "regression": [
            (numbers(rows, 1), numbers(rows)),
            (numbers(rows), torch.arange(rows)),
            (numbers(rows, 6), numbers(rows, 2, 3)),
        ],
        "next-character": [
            (numbers(rows, 5, 3), labels((rows, 5))),
            (numbers(rows, 5, 3), labels((rows,))),
            (numbers(rows, 3), labels((rows,))),
        ],
    }[name]


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("real", [[True, True, True], [True, False, True, True, False], [False, False, True]])
def test_rows_of_weight_zero_leave_the_loss_of_the_others_and_its_gradient(name: str, real: list[bool]) -> None:
    torch.manual_seed(0)
    weights = torch.tensor(real, dtype=torch.float64)
    for outputs, y in batch(name, len(real)):
        task = made(name, TWO if name in ("binary", "regression") else ("a", "b", "c"))
        outputs[~weights.bool()] *= 1e6
        outputs.requires_grad_()
        losses = task.losses(outputs, y)
        assert losses.shape == (len(real),)
        padded = losses @ weights / weights.sum()
        rows = outputs.detach()[weights.bool()].requires_grad_()
        loss = task.loss(rows, y[weights.bool()])
        torch.testing.assert_close(padded, loss)
        (gradient,), (right,) = torch.autograd.grad(padded, [outputs]), torch.autograd.grad(loss, [rows])
        torch.testing.assert_close(gradient[weights.bool()], right)
        assert not gradient[~weights.bool()].any()


def test_a_regression_target_of_the_wrong_width_is_not_broadcast() -> None:
    with pytest.raises(RuntimeError, match="invalid for input of size"):
        Regression().loss(torch.zeros(4, 2), torch.zeros(4))


class Smoothed(Classification):
    """Begins from ours, adds an option and a metric."""

    metrics = {**Classification.metrics, "sure": lambda outputs, y: outputs.softmax(-1).amax(-1).mean()}

    def __init__(self, scale: float, dtype: torch.dtype, classes: tuple[str, ...], smoothing: float = 0.1) -> None:
        super().__init__(scale, dtype, classes)
        self.smoothing = smoothing

    def loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        return functional.cross_entropy(outputs, y, label_smoothing=self.smoothing)


class Plain:
    """Nothing of ours at all."""

    metrics = {"bias": lambda outputs, y: (outputs[:, 0] - y).mean()}

    def inputs(self, x: Tensor) -> Tensor:
        return x.float()

    def loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        return (outputs[:, 0] - y).abs().mean()

    def outputs(self, classes: tuple[str, ...]) -> int:
        return 1


def test_a_task_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("own_tasks")
    module.Smoothed, module.Plain = Smoothed, Plain  # type: ignore[attr-defined]  # a module made here
    monkeypatch.setitem(sys.modules, "own_tasks", module)

    task = made("own_tasks:Smoothed", smoothing=0.3)
    assert (task.smoothing, task.scale, task.classes) == (0.3, 0.5, TWO)
    x, y = torch.zeros(4, 2), torch.tensor([0, 1, 1, 1])
    scores = Scorer(task, ("f1", "sure"), 3, "cpu").central(nn.Identity(), x, y)
    assert scores["sure"] == 0.5
    with pytest.raises(JobError, match=r"task\.softness: is not an option .* it has smoothing"):
        made("own_tasks:Smoothed", softness=0.3)

    plain = Scorer(made("own_tasks:Plain"), None, 3, "cpu")
    assert plain.names == ("loss", "bias")
    assert plain.central(nn.Identity(), torch.ones(4, 1), torch.zeros(4)) == {"loss": 1.0, "bias": 1.0}
    assert plain.client(nn.Identity(), torch.ones(4, 1), torch.zeros(4)).tolist() == [1.0, 1.0]
