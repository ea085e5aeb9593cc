"""What does not travel is home's on every rank, kept once, and the same when a run goes on."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import fedmpi
from fedmpi.job import JobError
from tests.fake import Fake, launch
from tests.rounds.test_resume import Killed
from tests.rounds.test_run import FIXED, on, weights


class Frozen(nn.Module):
    """A frozen body drawn anew for each module, a table of integers, and a head that learns."""

    def __init__(self, features: int = 6, outputs: int = 3, draw: Any = None, width: int = 8) -> None:
        super().__init__()
        self.body = nn.Linear(features, width)
        if draw is not None:
            self.body.weight.data.copy_(torch.tensor(draw(width * features)).view(width, features))
        self.body.requires_grad_(False)
        self.register_buffer("order", torch.randperm(width))
        self.register_buffer("tilt", torch.randn(width), persistent=False)
        self.head = nn.Linear(width, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(torch.relu(self.body(x) + self.tilt)[:, self.order])
        return out


def everything(model: nn.Module) -> list[torch.Tensor]:
    return [*model.parameters(), *model.buffers()]


def test_every_rank_trains_home_s_module(job: dict[str, Any]) -> None:
    """Modules that a script draws without a seed differ by rank; what home built is what all train."""
    job |= FIXED | {"model": "mine", "cohort": {}}
    modules = [Frozen() for _ in range(3)]
    first = [tensor.clone() for tensor in everything(modules[0])]
    alone = Frozen()
    for tensor, value in zip(everything(alone), first, strict=True):
        tensor.data.copy_(value)
    runs = launch(3, lambda comm: fedmpi.train(job, comm, model=modules[comm.me]))
    wanted = fedmpi.train(job, model=alone)
    for run in runs:
        assert all(map(torch.equal, everything(run.model), everything(wanted.model)))
    assert torch.equal(runs[1].model.body.weight, first[0])


@pytest.mark.parametrize(
    "draw",
    [
        lambda count: np.random.normal(size=count).astype(np.float32),
        lambda count: [random.random() for _ in range(count)],
        lambda count: np.random.default_rng().normal(size=count).astype(np.float32),
    ],
    ids=["numpy", "random", "unseeded"],
)
def test_a_factory_may_draw_as_it_likes(job: dict[str, Any], draw: Any) -> None:
    job |= FIXED | {"model": "mine", "cohort": {}}
    runs = on(3, job, model=lambda shape, outputs: Frozen(*shape, outputs, draw))
    assert all(torch.equal(run.model.body.weight, runs[0].model.body.weight) for run in runs)


def test_a_factory_s_draws_follow_the_job_s_seed_and_disturb_nobody(job: dict[str, Any]) -> None:
    def make(shape: tuple[int, ...], outputs: int) -> nn.Module:
        return Frozen(*shape, outputs, lambda count: np.random.normal(size=count) + random.random())

    job |= {"model": "mine", "rounds": 1}
    random.seed(1)
    np.random.seed(1)
    one = fedmpi.train(job, model=make)
    after = random.random(), np.random.random()
    random.seed(2)
    np.random.seed(2)
    other = fedmpi.train(job, model=make)
    assert torch.equal(one.model.body.weight, other.model.body.weight)
    random.seed(1)
    np.random.seed(1)
    assert after == (random.random(), np.random.random())


@pytest.mark.parametrize("change", [{"width": 9}, {"features": 6, "outputs": 4}])
def test_ranks_that_built_other_models_are_told_which(job: dict[str, Any], change: dict[str, int]) -> None:
    said = []

    def work(comm: Fake) -> None:
        try:
            fedmpi.train(job | {"model": "mine"}, comm, model=Frozen(**(change if comm.me == 2 else {})))
        except fedmpi.Refused as refused:
            said.append(str(refused))
            raise

    with pytest.raises(JobError):
        launch(3, work)
    [told] = [text for text in said if text]
    assert "rank 2" in told
    assert "\n" not in told


def kill(line: dict[str, Any]) -> None:
    if line["round"] == 2:
        raise Killed


def test_a_run_goes_on_with_the_model_that_it_began_with(job: dict[str, Any], tmp_path: Path) -> None:
    """The script builds its module anew, with another frozen body: the run's own counts."""
    job |= FIXED | {"model": "mine", "cohort": {}}
    torch.manual_seed(1)
    whole = fedmpi.train(job, model=Frozen())
    torch.manual_seed(1)
    with pytest.raises(Killed):
        fedmpi.train(job, model=Frozen(), out=tmp_path / "cut", on_round=kill)
    torch.manual_seed(2)
    resumed = fedmpi.train(job, model=Frozen(), out=tmp_path / "cut", resume=True)
    assert all(map(torch.equal, everything(resumed.model), everything(whole.model)))
    assert torch.equal(weights(resumed), weights(whole))


def test_a_first_model_that_is_gone_or_another_is_refused(job: dict[str, Any], tmp_path: Path) -> None:
    job |= {"model": "mine", "cohort": {}}
    torch.manual_seed(1)
    cut, other = Frozen(), Frozen()
    with pytest.raises(Killed):
        fedmpi.train(job, model=cut, out=tmp_path / "cut", on_round=kill)
    fedmpi.train(job, model=other, out=tmp_path / "other")
    (tmp_path / "cut" / "first.safetensors").unlink()
    with pytest.raises(fedmpi.Refused, match=r"first\.safetensors: is gone"):
        fedmpi.train(job, model=Frozen(), out=tmp_path / "cut", resume=True)
    (tmp_path / "cut" / "first.safetensors").write_bytes((tmp_path / "other" / "first.safetensors").read_bytes())
    with pytest.raises(fedmpi.Refused, match="not what this run began with"):
        fedmpi.train(job, model=Frozen(), out=tmp_path / "cut", resume=True)


def test_a_module_of_another_kind_is_refused_when_a_run_goes_on(job: dict[str, Any], tmp_path: Path) -> None:
    job |= {"model": "mine"}
    with pytest.raises(Killed):
        fedmpi.train(job, model=Frozen(), out=tmp_path / "cut", on_round=kill)
    with pytest.raises(JobError, match=r"'body\."):
        fedmpi.train(job, model=Frozen(width=9), out=tmp_path / "cut", resume=True)
