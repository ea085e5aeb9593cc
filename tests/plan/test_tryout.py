"""What does not go together is told in one line before the first round."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import fedmpi
from fedmpi.data import ShardSet
from fedmpi.evaluation import Classification, Metric
from fedmpi.job import JobError, read
from fedmpi.plan import assemble
from fedmpi.rounds.loops import LOOPS
from fedmpi.rounds.loops.synchronous import Synchronous
from fedmpi.strategies import STRATEGIES
from tests.blobs import blobs


def tried(job: dict[str, Any], model: Any = None, task: Any = None, **sections: Any) -> None:
    """A job and its try-out, as `fedmpi train` has them before it starts a rank."""
    assemble(
        read(job | sections | ({"model": "mine"} if model is not None else {})), model=model, task=task, loops=LOOPS
    )


def refused(words: str, *given: Any, **sections: Any) -> str:
    with pytest.raises(JobError, match=words) as caught:
        tried(*given, **sections)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def stack(*layers: nn.Module, out: int = 3) -> Any:
    return lambda shape, outputs: nn.Sequential(nn.Linear(6, 8), *layers, nn.Linear(8, out))


@pytest.fixture
def seventeen(tmp_path: Path) -> dict[str, Any]:
    """Seventeen examples in batches of eight: the last batch holds one."""
    fedmpi.write_shards(tmp_path / "data", blobs((16, 17)), holdout=0.0, classes=("a", "b", "c"))
    return {
        "rounds": 1,
        "threads": 1,
        "data": {"shards": str(tmp_path / "data")},
        "model": "mine",
        "local": {"batch": 8, "lr": 0.1},
    }


# Batches.


def norm() -> nn.Module:
    return nn.BatchNorm1d(8)


def test_a_last_batch_of_one_is_told_with_the_way_out(seventeen: dict[str, Any]) -> None:
    said = refused(r"^local\.batch: 8 given.*'site-1' holds 17 examples.*last batch of 1", seventeen, stack(norm()))
    assert "Expected more than 1 value per channel" in said
    assert 'local.remainder be "drop" or "merge"' in said
    for remainder in ("drop", "merge"):
        local = {"batch": 8, "lr": 0.1, "remainder": remainder}
        tried(seventeen, stack(norm()), local=local)
        assert fedmpi.train(seventeen | {"local": local}, model=stack(norm())).lines


@pytest.mark.parametrize(
    ("local", "strategy", "meets"),
    [
        ({"batch": 8, "steps": 2}, "fedavg", False),  # a new order each round: the third batch never comes
        ({"batch": 8, "steps": 3}, "fedavg", True),
        ({"batch": 8, "steps": 2}, "per-fedavg", True),  # takes twice as many
        ({"batch": 0}, "fedavg", False),
        ({"batch": 17}, "fedavg", False),
        ({"batch": 16}, "fedavg", True),
    ],
)
def test_only_batches_that_a_client_meets_are_tried(
    seventeen: dict[str, Any], local: dict[str, Any], strategy: str, meets: bool
) -> None:
    sections = {"local": {"lr": 0.1, **local}, "strategy": strategy}
    if meets:
        refused("last batch of 1", seventeen, stack(norm()), **sections)
    else:
        tried(seventeen, stack(norm()), **sections)


def test_a_client_of_one_example_is_named(tmp_path: Path, seventeen: dict[str, Any]) -> None:
    fedmpi.write_shards(tmp_path / "one", blobs((16, 1)), holdout=0.0, classes=("a", "b", "c"))
    for remainder in ("keep", "drop", "merge"):
        local = {"batch": 8, "remainder": remainder}
        said = refused(
            "'site-1' holds 1 example in all",
            seventeen,
            stack(norm()),
            data={"shards": str(tmp_path / "one")},
            local=local,
        )
        assert "local.remainder" not in said


def test_a_large_batch_and_a_large_client_are_not_tried_whole(tmp_path: Path, seventeen: dict[str, Any]) -> None:
    fedmpi.write_shards(tmp_path / "large", blobs((3000,), features=4096), holdout=0.0, classes=("a", "b", "c"))
    seen: list[int] = []

    class Seeing(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(len(x))
            return super().forward(x)

    large = {"data": {"shards": str(tmp_path / "large")}}
    for batch in (0, 2000):
        tried(seventeen, lambda shape, outputs: Seeing(4096, 3), **large, local={"batch": batch, "lr": 0.1})
    assert max(seen) <= 64

    class Large(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            assert len(x) == 1500 or not self.training  # what would fail on few examples alone is tried on all
            return super().forward(x)

    tried(seventeen, lambda shape, outputs: Large(4096, 3), **large, local={"batch": 1500, "lr": 0.1})


# Outputs, losses, gradients.


class Two(nn.Linear):
    """Inception's way: a tuple where it trains."""

    def forward(self, x: Tensor) -> Any:
        made = super().forward(x)
        return (made, made) if self.training else made


class InPlace(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        made = super().forward(x).exp()
        made.mul_(2) if self.training else None
        return made


class Detached(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).detach() + 0 * torch.ones(1, requires_grad=True)


class Hidden(nn.Linear):
    """Keeps the graph of the batch before."""

    kept: Any = 0.0

    def forward(self, x: Tensor) -> Tensor:
        self.kept = super().forward(x[:1]) + 0.5 * self.kept
        return super().forward(x) + self.kept


class EachLoss(Classification):
    def loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        return functional.cross_entropy(outputs, y, reduction="none")


class NumberLoss(Classification):
    def loss(self, outputs: Tensor, y: Tensor) -> Any:
        return float(functional.cross_entropy(outputs, y))


class TwoClasses(Classification):
    """Sees no label of 2 in the batch that is tried."""

    def loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        return functional.cross_entropy(outputs[:, :2], y)


def of(kind: type[nn.Linear]) -> Any:
    return lambda shape, outputs: kind(6, 3)


@pytest.mark.parametrize(
    ("model", "task", "words"),
    [
        (stack(out=7), None, r"^model\.name: your model gives \(\d+, 7\), the task wants \(\d+, 3\)$"),
        (stack(out=2), None, r"^model\.name: your model gives \(\d+, 2\), the task wants \(\d+, 3\)$"),
        (of(Two), None, r"^model\.name: your model gives a tuple of 2, the task wants one tensor \(\d+, 3\)$"),
        (of(InPlace), None, r"^model\.name: 'mine' fails where it trains.*modified by an inplace operation"),
        (of(Detached), None, r"^task: its loss has no gradient"),
        (of(Hidden), None, r"^model\.name: 'mine' fails where it trains.*backward through the graph a second time"),
        (of(nn.Linear), EachLoss, r"^task: its loss of \d+ examples has shape \(\d+,\)"),
        (of(nn.Linear), NumberLoss, r"^task: its loss of \d+ examples is a float"),
        (stack(nn.Linear(9, 8)), None, r"^model\.name: 'mine' fails where it is scored.*cannot be multiplied"),
    ],
)
def test_what_does_not_fit_is_told_in_the_job_s_words(job: dict[str, Any], model: Any, task: Any, words: str) -> None:
    refused(words, job, model, task)


def test_numbers_of_another_shape_are_refused(tmp_path: Path, job: dict[str, Any]) -> None:
    """As many outputs as targets go, in one row or in their shape; more would broadcast or be read in another order."""
    for name, shape in (("one", ()), ("two", (2, 3))):
        clients = {"a": (np.ones((9, 6), np.float32), np.zeros((9, *shape), np.float32))}
        fedmpi.write_shards(tmp_path / name, clients, holdout=0.2)
    one, two = ({"data": {"shards": str(tmp_path / name)}, "cohort": {}} for name in ("one", "two"))

    def laid(*places: int) -> Any:
        return lambda shape, outputs: nn.Sequential(nn.Linear(6, 6), nn.Unflatten(1, places))

    tried(job, lambda shape, outputs: nn.Linear(6, outputs), **one)
    tried(job, lambda shape, outputs: nn.Sequential(nn.Linear(6, 1), nn.Flatten(0)), **one)
    tried(job, lambda shape, outputs: nn.Linear(6, outputs), **two)
    tried(job, laid(2, 3), **two)
    refused(r"your model gives \(\d, 2\), the task wants \(\d, 1\)", job, lambda shape, outputs: nn.Linear(6, 2), **one)
    refused(r"your model gives \(\d, 3, 2\), the task wants \(\d, 6\)", job, laid(3, 2), **two)


def test_a_parameter_that_no_loss_reaches_is_no_fault(job: dict[str, Any]) -> None:
    def model(shape: Any, outputs: int) -> nn.Module:
        made = nn.Linear(6, outputs)
        made.unused = nn.Linear(2, 2)
        return made

    tried(job, model)


def test_a_label_that_one_client_alone_has_is_asked_of_the_loss(tmp_path: Path, seventeen: dict[str, Any]) -> None:
    (x, _), (other, _) = blobs((9, 30)).values()
    clients = {"a": (x, np.arange(9) % 2), "b": (other, np.full(30, 2))}
    fedmpi.write_shards(tmp_path / "apart", clients, holdout=0.0, classes=("a", "b", "c"))
    words = r"^task: its loss fails on the label 2, which an example.*Target 2 is out of bounds.*test_tryout\.py:\d+\)$"
    refused(words, seventeen, of(nn.Linear), TwoClasses, data={"shards": str(tmp_path / "apart")})


def test_a_label_outside_the_classes_is_found_on_whichever_client(
    job: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ShardSet, "labels", lambda self: (0, 5))
    refused(r"^data\.shards: .* holds the label 5, and the task 'classification' has 3 classes, 0 to 2$", job)


# Metrics.


def breaks(outputs: Tensor, y: Tensor) -> float:
    return 1 / 0


def nothing(outputs: Tensor, y: Tensor) -> None:
    return None


def several(outputs: Tensor, y: Tensor) -> Tensor:
    return outputs.mean(0)


def worded(outputs: Tensor, y: Tensor) -> str:
    return "0.5"


STREAM = Metric(lambda outputs, y: (outputs, y), lambda outputs, y: outputs.double().mean(), "regression.NoSuch")


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        (breaks, r"'own' failed on \d+ examples?: ZeroDivisionError: division by zero \(.*test_tryout\.py:\d+\)$"),
        (nothing, "'own' gives a NoneType; it should give one number$"),
        (several, r"'own' gives a tensor of shape \(3,\)"),
        (worded, "'own' gives a str"),
        (STREAM, "a metric streams 'regression.NoSuch', which torchmetrics has not"),
    ],
    ids=["breaks", "nothing", "several", "worded", "streams"],
)
@pytest.mark.parametrize("clients", [True, False])
def test_a_metric_of_one_s_own_is_tried(job: dict[str, Any], metric: Any, words: str, clients: bool) -> None:
    class Own(Classification):
        metrics = {**Classification.metrics, "own": metric}

    evaluation = {"metrics": ["accuracy", "own"], "clients": clients}
    refused(rf"^evaluation\.metrics: {words}", job, of(nn.Linear), Own, evaluation=evaluation)


def test_a_metric_that_needs_every_class_has_all_test_examples_before_it_is_refused(job: dict[str, Any]) -> None:
    def whole(outputs: Tensor, y: Tensor) -> float:
        assert len(y) > 40, "a few examples are none"
        return 1.0

    class Own(Classification):
        metrics = {"whole": whole}

    tried(job, of(nn.Linear), Own, evaluation={"metrics": ["whole"], "clients": False})


# The user's own code, in one line; built-in parts in the job's words.


class Trips(STRATEGIES["fedavg"]):
    corrects = True

    def correct(self, grads: Tensor, values: Tensor, received: Tensor, client: Any) -> None:
        raise KeyError("no such note")


class Stumbles(Classification):
    def inputs(self, x: Tensor) -> Tensor:
        raise LookupError("no such column")


def test_the_field_and_the_line_are_those_of_the_code_that_raised(job: dict[str, Any]) -> None:
    here = r"\(.*test_tryout\.py:\d+\)$"
    trips = f"{__name__}:Trips"
    refused(
        rf"^strategy: '{re.escape(trips)}' fails where it trains.*KeyError: 'no such note' {here}", job, strategy=trips
    )
    refused(rf"^task: 'Stumbles' fails where it is scored.*LookupError: no such column {here}", job, None, Stumbles)


def test_a_model_whose_hooks_hold_on_to_the_first_module_is_no_fault(job: dict[str, Any]) -> None:
    """A copy of it would listen to the layers of the first."""

    class Hooked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = nn.Linear(6, 4), nn.Linear(4, 3)
            self.found: dict[str, Tensor] = {}
            self.layer.register_forward_hook(lambda module, given, made: self.found.update(made=made))
            self.last = lambda made: self.head(made)

        def forward(self, x: Tensor) -> Tensor:
            self.found.clear()
            self.layer(x)
            return self.last(self.found["made"])

    tried(job, lambda shape, outputs: Hooked())


def test_what_the_central_score_needs_is_imported_before_the_first_round(
    job: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    happened: list[str] = []
    importing = importlib.import_module
    monkeypatch.setattr(importlib, "import_module", lambda name: (happened.append(name), importing(name))[1])
    run = Synchronous.run
    monkeypatch.setattr(Synchronous, "run", lambda *given: (happened.append("rounds"), run(*given))[1])
    fedmpi.train(job)
    assert "torchmetrics.classification" in happened[: happened.index("rounds")]
