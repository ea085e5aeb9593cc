"""What a module keeps beside its state begins afresh for every client."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import fedmpi
from tests.flat.odd import Change, Odd, make, same, training, whole
from tests.rounds.test_run import FIXED, on


def cache(self: Any, x: Tensor) -> None:
    """What a client's examples leave in it must not reach another client."""
    if not hasattr(self, "kept"):
        self.kept = x.mean(0).detach()
    with torch.no_grad():
        self.mean.copy_(self.kept)


def scratch(self: Any, x: Tensor) -> None:
    with torch.no_grad():
        self.seen.add_(x.mean(0))
        self.mean.copy_(self.seen)


def grown(self: Any, x: Tensor) -> None:
    self.seen = torch.cat([self.seen, x.detach().mean(0)])[-60:]
    with torch.no_grad():
        self.mean.copy_(self.seen[-6:])


def built(self: Any, x: Tensor) -> None:
    if not self.built:
        self.table, self.built, self.width = x.detach()[:1].mean(0), True, len(x)
    with torch.no_grad():
        self.mean.copy_(self.table * self.width)


@pytest.mark.parametrize("change", [cache, scratch, grown, built])
def test_scratch_is_each_client_s_own(job: dict[str, Any], change: Change) -> None:
    """Plain attributes and buffers that are not persistent begin afresh: so the number of ranks changes nothing."""
    job |= FIXED | {"model": "mine", "rounds": 3}
    one = fedmpi.train(job, model=make(training(change)))
    assert same(whole(on(4, job, model=make(training(change)))[1]), whole(one))


def test_a_flag_that_is_no_buffer_is_told(job: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    fedmpi.train(job | {"model": "mine", "rounds": 1}, model=make(training(built)))
    assert capsys.readouterr().err.count("'built' becomes True") == 1


def test_a_table_cached_while_scoring_serves_training(job: dict[str, Any]) -> None:
    def table(self: Any, x: Tensor) -> None:
        if getattr(self, "table", None) is None or len(self.table) < len(x):
            self.table = torch.linspace(0.5, 1.5, 3).repeat(len(x), 1)

    class Cached(Odd):
        def forward(self, x: Tensor) -> Tensor:
            self.change(self, x)
            return (x @ self.weight.T) * self.table[: len(x)]

    run = fedmpi.train(job | {"model": "mine"}, model=lambda shape, outputs: Cached(table, *shape, outputs))
    assert run.lines[-1]["train_loss"] < run.lines[0]["train_loss"]
