"""Losses of a person's own task that are not its loss, example by example, are refused before the first round."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import fedmpi
from fedmpi.evaluation import Classification
from fedmpi.job import JobError, read
from fedmpi.plan import assemble
from fedmpi.rounds.loops import LOOPS
from tests.blobs import blobs

WEIGHTS = torch.tensor([1.0, 2.0, 4.0])


def task_of(losses: Any, weights: Tensor | None = None) -> Any:
    class Own(Classification):
        def loss(self, outputs: Tensor, y: Tensor) -> Tensor:
            return functional.cross_entropy(outputs, y.long(), weights)

    Own.losses = losses  # type: ignore[method-assign]
    return Own


def rows(self: Any, outputs: Tensor, y: Tensor) -> Tensor:
    return functional.cross_entropy(outputs, y.long(), reduction="none")


def tried(job: dict[str, Any], task: Any) -> None:
    model = lambda shape, outputs: nn.Linear(6, outputs)  # noqa: E731
    assemble(read(job | {"model": "mine"}), model=model, task=task, loops=LOOPS)


def refused(job: dict[str, Any], task: Any, words: str) -> None:
    with pytest.raises(JobError, match=words) as caught:
        tried(job, task)
    assert "\n" not in str(caught.value)


def test_the_losses_of_each_example_are_taken(job: dict[str, Any]) -> None:
    tried(job, task_of(rows))
    tried(job, task_of(None, WEIGHTS))

    class Begun(Classification):
        """Ours are of another loss, and left out."""

        def loss(self, outputs: Tensor, y: Tensor) -> Tensor:
            return functional.cross_entropy(outputs, y.long(), label_smoothing=0.3)

    tried(job, Begun)


@pytest.mark.parametrize(
    ("losses", "words"),
    [
        (lambda each, outputs: each.mean(), r"^task: its losses of \d+ examples have shape \(\)"),
        (lambda each, outputs: each[:, None], r"have shape \(\d+, 1\) and type float32; .*, \(\d+,\)$"),
        (lambda each, outputs: each.tolist(), r"^task: its losses of \d+ examples are a list"),
        (lambda each, outputs: each.long(), r"have shape \(\d+,\) and type int64"),
        (lambda each, outputs: each.detach(), "^task: its loss has a gradient, and its losses have none"),
        (lambda each, outputs: each + 0.01, r"have the mean \d\.\d+, and its loss is \d\.\d+; `losses`"),
        (lambda each, outputs: each.mean().expand(len(each)), r"are others where the first \d+ are by themselves"),
        (lambda each, outputs: each @ outputs, r"^task: 'Own' fails where it .*RuntimeError.*test_each\.py:\d+\)$"),
    ],
    ids=["mean", "column", "list", "whole", "detached", "apart", "alike", "fails"],
)
def test_losses_that_are_not_the_loss_are_refused(job: dict[str, Any], losses: Any, words: str) -> None:
    refused(job, task_of(lambda self, outputs, y: losses(rows(self, outputs, y), outputs.mean())), words)


def test_examples_that_count_by_their_class_have_no_loss_by_themselves(job: dict[str, Any]) -> None:
    """The mean is over their weights: each one's share depends on the others' labels, as with targets left out."""

    def shares(self: Any, outputs: Tensor, y: Tensor) -> Tensor:
        each = functional.cross_entropy(outputs, y.long(), WEIGHTS, reduction="none")
        return each * len(y) / WEIGHTS[y.long()].sum()

    refused(job, task_of(shares, WEIGHTS), "are others where the first")


def test_the_lowest_and_the_highest_label_are_tried(tmp_path: Path) -> None:
    """A batch without them says nothing: torch leaves targets of 2 out of the mean, and not of the losses."""

    class Skips(Classification):
        def loss(self, outputs: Tensor, y: Tensor) -> Tensor:
            return functional.cross_entropy(outputs, y.long(), ignore_index=2)

        def losses(self, outputs: Tensor, y: Tensor) -> Tensor:
            return functional.cross_entropy(outputs, y.long(), ignore_index=2, reduction="none")

    (x, _), (other, _) = blobs((9, 30)).values()
    clients = {"a": (x, np.arange(9) % 2), "b": (other, np.full(30, 2))}
    fedmpi.write_shards(tmp_path / "apart", clients, holdout=0.0, classes=("a", "b", "c"))
    job = {"rounds": 1, "threads": 1, "data": {"shards": str(tmp_path / "apart")}, "local": {"batch": 8, "lr": 0.1}}
    refused(job, Skips, "have the mean")
