"""A client's scores, against torchmetrics' own functions on the raw outputs, and against counting by hand."""

import math
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedmpi.evaluation import Binary, Classification, NextCharacter, Regression, client_scores, higher_is_better

lawful = settings(derandomize=True, database=None, deadline=None, max_examples=60)
halves = st.integers(-6, 6).map(lambda value: value / 2)  # few values, so that ties are common

CLASSES = ("a", "b", "c", "d")
NUMBERS = Regression(dtype=torch.float64)
TEXT = NextCharacter(CLASSES)


@st.composite
def clients(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Logits `(N, 4)` and labels of a client that need not hold every class."""
    held = draw(st.lists(st.integers(0, 3), min_size=1, max_size=4))
    y = draw(st.lists(st.sampled_from(held), min_size=1, max_size=12))
    rows = draw(st.lists(st.lists(halves, min_size=4, max_size=4), min_size=len(y), max_size=len(y)))
    return torch.tensor(rows), torch.tensor(y)


@st.composite
def two_classes(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Logits `(N, 1)` and labels 0 and 1."""
    pairs = draw(st.lists(st.tuples(halves, st.integers(0, 1)), min_size=1, max_size=12))
    return torch.tensor([[logit] for logit, _ in pairs]), torch.tensor([label for _, label in pairs])


def scores(task: Any, outputs: Tensor, y: Tensor) -> dict[str, float]:
    row = client_scores(outputs, y, task, tuple(task.metrics))
    assert row.dtype == torch.float64
    return dict(zip(("loss", *task.metrics), row.tolist(), strict=True))


def same(ours: float, theirs: float) -> bool:
    return (math.isnan(ours) and math.isnan(theirs)) or math.isclose(ours, theirs, rel_tol=1e-5, abs_tol=1e-6)


def pairs(scores: Tensor, inside: Tensor) -> float:
    """AUROC by its meaning: how often one inside is above one outside, a tie counting half."""
    wins = [
        (above > below) + (above == below) / 2
        for above in scores[inside].tolist()
        for below in scores[~inside].tolist()
    ]
    return sum(wins) / len(wins) if wins else math.nan


@lawful
@given(clients())
def test_of_several_classes_they_are_torchmetrics(client: tuple[Tensor, Tensor]) -> None:
    from torchmetrics.functional import classification as theirs

    outputs, y = client
    ours = scores(Classification(classes=CLASSES), outputs, y)
    assert same(ours["loss"], torch.nn.functional.cross_entropy(outputs, y).item())
    for name, function, average in (
        ("accuracy", theirs.multiclass_accuracy, "micro"),
        ("precision", theirs.multiclass_precision, "macro"),
        ("recall", theirs.multiclass_recall, "macro"),
        ("f1", theirs.multiclass_f1_score, "macro"),
    ):
        assert same(ours[name], function(outputs, y, 4, average=average).item()), name


@lawful
@given(clients())
def test_auroc_of_several_classes_is_the_mean_over_those_that_have_one(client: tuple[Tensor, Tensor]) -> None:
    outputs, y = client
    chances = outputs.double().softmax(-1)
    areas = [pairs(chances[:, label], y == label) for label in range(4)]
    known = [area for area in areas if not math.isnan(area)]
    ours = scores(Classification(classes=CLASSES), outputs, y)["auroc"]
    assert same(ours, sum(known) / len(known) if known else math.nan)


@pytest.mark.filterwarnings("ignore")
def test_auroc_is_torchmetrics_where_every_class_is_there() -> None:
    from torchmetrics.functional.classification import multiclass_auroc

    torch.manual_seed(0)
    outputs, y = torch.randn(50, 4), torch.arange(50) % 4
    ours = scores(Classification(classes=CLASSES), outputs, y)["auroc"]
    assert same(ours, multiclass_auroc(outputs, y, 4).item())


@lawful
@given(two_classes())
@pytest.mark.filterwarnings("ignore")
def test_of_two_classes_they_are_torchmetrics(client: tuple[Tensor, Tensor]) -> None:
    from torchmetrics.functional import classification as theirs

    outputs, y = client
    chances = outputs[:, 0].sigmoid()
    ours = scores(Binary(), outputs, y)
    assert same(ours["loss"], torch.nn.functional.binary_cross_entropy(chances, y.float()).item())
    assert same(ours["accuracy"], theirs.binary_accuracy(chances, y).item())
    assert same(ours["precision"], theirs.binary_precision(chances, y).item())
    assert same(ours["recall"], theirs.binary_recall(chances, y).item())
    assert same(ours["f1"], theirs.binary_f1_score(chances, y).item())
    assert same(ours["auroc"], pairs(chances, y == 1))
    assert same(ours["auroc"], theirs.binary_auroc(chances, y).item() if len(y.unique()) == 2 else math.nan)


@lawful
@given(st.lists(st.tuples(halves, halves), min_size=1, max_size=12))
def test_of_numbers_they_are_torchmetrics(client: list[tuple[float, float]]) -> None:
    from torchmetrics.functional import regression as theirs

    both = torch.tensor(client, dtype=torch.float64)
    outputs, y = both[:, :1], both[:, 1]
    ours = scores(NUMBERS, outputs, y)
    assert ours["loss"] == ours["mse"]
    assert same(ours["mse"], theirs.mean_squared_error(outputs[:, 0], y).item())
    assert same(ours["mae"], theirs.mean_absolute_error(outputs[:, 0], y).item())
    assert same(ours["r2"], theirs.r2_score(outputs[:, 0], y).item() if len(y.unique()) > 1 else math.nan)


@lawful
@given(
    st.lists(st.tuples(halves, halves), min_size=2, max_size=8).filter(lambda rows: len({y for _, y in rows}) > 1),
    st.floats(1e-6, 1e6),
    st.floats(-1e3, 1e3),
)
def test_r2_knows_no_unit(client: list[tuple[float, float]], unit: float, origin: float) -> None:
    both = torch.tensor(client, dtype=torch.float64)
    plain, other = (scores(NUMBERS, table[:, :1], table[:, 1])["r2"] for table in (both, (both + origin) * unit))
    assert math.isclose(plain, other, rel_tol=1e-6, abs_tol=1e-6)


def test_r2_of_several_columns_is_the_mean_over_those_whose_targets_differ() -> None:
    from sklearn.metrics import r2_score

    torch.manual_seed(0)
    outputs, y = torch.randn(20, 3), torch.randn(20, 3)
    y[:, 1] = 0.1  # no multiple of a power of two: its mean is rounded
    expected = r2_score(y[:, [0, 2]].double(), outputs[:, [0, 2]].double())
    assert same(scores(Regression(target_shape=(3,)), outputs, y)["r2"], expected)


@lawful
@given(st.integers(1, 5), st.integers(1, 6), st.integers(0, 2**32))
def test_of_characters_they_are_torchmetrics(texts: int, length: int, seed: int) -> None:
    from torchmetrics.functional.classification import multiclass_accuracy
    from torchmetrics.functional.text import perplexity

    generator = torch.Generator().manual_seed(seed)
    outputs = torch.randn(texts, length, 4, generator=generator)
    y = torch.randint(4, (texts, length), generator=generator)
    ours = scores(TEXT, outputs, y)
    rows, labels = outputs.reshape(-1, 4), y.reshape(-1)
    assert same(ours["accuracy"], multiclass_accuracy(rows, labels, 4, average="micro").item())
    assert same(ours["perplexity"], perplexity(outputs, y).item())
    assert same(ours["perplexity"], math.exp(ours["loss"]))


def test_one_label_a_text_is_that_of_the_last_position() -> None:
    outputs, y = torch.randn(6, 5, 4), torch.randint(4, (6,))
    assert scores(TEXT, outputs, y) == scores(TEXT, outputs[:, -1], y)


@pytest.mark.parametrize(
    ("task", "outputs", "y", "undefined"),
    [
        (Classification(classes=CLASSES), torch.rand(1, 4), torch.tensor([2]), {"auroc"}),
        (Classification(classes=CLASSES), torch.rand(3, 4), torch.tensor([2, 2, 2]), {"auroc"}),
        (Binary(), torch.rand(2, 1), torch.tensor([1, 1]), {"auroc"}),
        (NUMBERS, torch.rand(1, 1), torch.rand(1), {"r2"}),
        (NUMBERS, torch.rand(3, 1), torch.full((3,), 0.1), {"r2"}),
        (TEXT, torch.rand(1, 1, 4), torch.tensor([[3]]), set()),
        (Classification(classes=CLASSES), torch.full((4, 4), math.nan), torch.arange(4), {"loss", "auroc"}),
        (Binary(), torch.full((2, 1), math.nan), torch.arange(2), {"loss", "auroc"}),
        (NUMBERS, torch.full((2, 1), math.nan), torch.rand(2), {"loss", "mse", "mae", "r2"}),
    ],
)
def test_what_examples_do_not_define_is_nan(task: Any, outputs: Tensor, y: Tensor, undefined: set[str]) -> None:
    assert {name for name, score in scores(task, outputs, y).items() if math.isnan(score)} == undefined


def test_confident_outputs_do_not_tie() -> None:
    outputs = torch.tensor([[0.0, 20.0], [0.0, 25.0], [0.0, 30.0]])
    assert scores(Classification(classes=("a", "b")), outputs, torch.tensor([0, 1, 1]))["auroc"] == 1.0


def test_more_is_better_of_what() -> None:
    def error(outputs: Tensor, y: Tensor) -> Tensor:
        return (outputs - y).abs().max()

    error.higher_is_better = False  # type: ignore[attr-defined]  # a function may carry it

    class Mine(Regression):
        metrics = {**Regression.metrics, "largest": error, "within": lambda outputs, y: 1.0}

    told = {name: higher_is_better(name, Mine()) for name in ("loss", *Mine.metrics)}
    assert told == {"loss": False, "mse": False, "mae": False, "r2": True, "largest": False, "within": True}
    assert not higher_is_better("perplexity", TEXT)
    assert all(higher_is_better(name, Binary()) for name in Binary.metrics)


def test_a_users_function_may_give_a_number_or_a_tensor() -> None:
    class Mine(Regression):
        metrics: dict[str, Callable[..., Any]] = {"two": lambda outputs, y: 2, "sum": lambda outputs, y: y.sum()}

    row = client_scores(torch.zeros(2, 1), torch.tensor([1.0, 2.0]), Mine(), ("sum", "two"))
    assert row.tolist() == [2.5, 3.0, 2.0]


def test_clients_are_scored_without_torchmetrics() -> None:
    code = (
        "import sys, torch, fedmpi.evaluation as e;"
        "e.Scorer(e.Binary(), list(e.Binary.metrics), 8, 'cpu').client(torch.nn.Linear(2, 1), torch.rand(3, 2), "
        "torch.tensor([0, 1, 1])); sys.exit('torchmetrics' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
