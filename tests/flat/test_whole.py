"""Whole numbers of a model: counts are added up over clients, a flag once set stays set."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import fedmpi
from tests.flat.odd import Change, Odd, count, make, training
from tests.rounds.test_run import FIXED, on


def start(self: Any, x: Tensor) -> None:
    if not self.begun:
        self.starts.append(1)
        self.begun.fill_(True)
        with torch.no_grad():
            self.mean.copy_(x.mean(0))


def start_by_integer(self: Any, x: Tensor) -> None:
    if self.state == 0:
        self.starts.append(1)
        self.state = self.state + 1
        with torch.no_grad():
            self.mean.copy_(x.mean(0))


@pytest.mark.parametrize("change", [start, start_by_integer])
def test_a_start_made_from_data_is_made_once(job: dict[str, Any], change: Change) -> None:
    """Every client of the first round makes it, and none of a later one."""
    starts: list[int] = []

    class Starting(Odd):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            self.starts = starts

    job |= {"model": "mine", "cohort": {"size": 4}, "rounds": 4, "local": {"lr": 0.1, "batch": 4, "epochs": 1}}
    model = Starting(training(change))
    starts.clear()
    run = fedmpi.train(job, model=model)
    assert len(starts) - 1 <= 4 <= len(starts)  # the try-out may have made one
    assert bool(run.model.begun) or int(run.model.state) == 1


def test_counts_are_added_up_over_clients(job: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    job |= FIXED | {"model": "mine"}
    runs = on(3, job, model=make(training(count)))
    steps = sum(line["steps"] for line in runs[0].lines)
    assert [int(run.model.steps) for run in runs] == [steps] * 3
    assert capsys.readouterr().err.count("'steps'") == 1
