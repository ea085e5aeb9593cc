"""Modules that rebind, replace or move their tensors train as their twins in place, or are refused by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

import fedmpi
from fedmpi.job import JobError
from tests.flat.odd import Change, Odd, count, make, quietly, same, training, whole
from tests.rounds.test_run import FIXED, on, weights


def norm(weight: Tensor) -> Tensor:
    return torch.renorm(weight, p=2, dim=0, maxnorm=0.5)


def assign(self: Any, x: Tensor) -> None:
    self.mean = x.mean(0)


def lay_data(self: Any, x: Tensor) -> None:
    self.mean.data = x.mean(0)


def lay_dict(self: Any, x: Tensor) -> None:
    self._buffers["mean"] = x.mean(0)


def register(self: Any, x: Tensor) -> None:
    self.register_buffer("mean", x.mean(0))


def set_storage(self: Any, x: Tensor) -> None:
    self.mean.set_(x.mean(0))


def vector(self: Any, x: Tensor) -> None:
    vector_to_parameters(parameters_to_vector([norm(self.weight)]), [self.weight])


def weight_set(self: Any, x: Tensor) -> None:
    self.weight.set_(norm(self.weight.detach()))


def weight_data(self: Any, x: Tensor) -> None:
    self.weight.data = norm(self.weight.data)


IN_PLACE = {
    "mean": training(quietly(lambda self, x: self.mean.copy_(x.mean(0)))),
    "weight": quietly(lambda self, x: self.weight.copy_(norm(self.weight))),
    "count": training(lambda self, x: self.steps.add_(1)),
}
TWINS = {
    "assigned": ("mean", training(quietly(assign))),
    "with its graph": ("mean", training(assign)),
    "data": ("mean", training(quietly(lay_data))),
    "dict": ("mean", training(quietly(lay_dict))),
    "registered": ("mean", training(quietly(register))),
    "set": ("mean", training(quietly(set_storage))),
    "weight.data": ("weight", weight_data),
    "weight.set_": ("weight", quietly(weight_set)),
    "vector_to_parameters": ("weight", quietly(vector)),
    "counter": ("count", training(count)),
}


@pytest.mark.parametrize("twin", TWINS)
@pytest.mark.parametrize("local", [{}, {"optimizer": "adam"}], ids=["plain", "adam"])
def test_what_code_lays_elsewhere_counts_as_it_would_in_place(job: dict[str, Any], twin: str, local: Any) -> None:
    """Oracle: the same change made in place, on one rank; and every number of ranks gives its bits."""
    of, change = TWINS[twin]
    job |= FIXED | {"model": "mine", "rounds": 2, "local": job["local"] | {"engine": "sequential"} | local}
    wanted = fedmpi.train(job, model=make(IN_PLACE[of]))
    assert same(whole(fedmpi.train(job, model=make(change))), whole(wanted))
    assert same(whole(on(3, job, model=make(change))[2]), whole(wanted))


def test_a_rebound_weight_learns_as_plain_torch_does(tmp_path: Any) -> None:
    """Oracle: torch alone, one client, whole batches."""
    random = np.random.default_rng(0)
    x, y = random.normal(size=(24, 6)).astype(np.float32), random.integers(0, 3, 24)
    fedmpi.write_shards(tmp_path / "one", {"a": (x, y)}, holdout=0.0)
    torch.manual_seed(5)
    plain = Odd(weight_data)
    start = {name: tensor.clone() for name, tensor in plain.state_dict().items()}
    optimizer = torch.optim.SGD([plain.weight], lr=0.3)
    for _ in range(6):
        optimizer.zero_grad()
        nn.functional.cross_entropy(plain(torch.from_numpy(x)), torch.from_numpy(y)).backward()
        optimizer.step()
    model = Odd(weight_data)
    model.load_state_dict(start)
    table = {"rounds": 3, "threads": 1, "local": {"lr": 0.3, "epochs": 2, "batch": 0}, "evaluation": {"every": 0}}
    run = fedmpi.train(table, model=model, shards=tmp_path / "one")
    torch.testing.assert_close(run.model.weight, plain.weight, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(run.model.weight, start["weight"], atol=1e-2)


@pytest.mark.parametrize("order", [("low", "high"), ("high", "low")])
def test_a_replaced_buffer_is_averaged_whatever_the_order(tmp_path: Any, order: tuple[str, str]) -> None:
    values = {"low": 0.0, "high": 10.0}
    y = np.array([0, 1] * 4)
    clients = {name: (np.full((8, 6), values[name], dtype=np.float32), y) for name in order}
    fedmpi.write_shards(tmp_path / "two", clients, holdout=0.0)
    table = {"rounds": 2, "threads": 1, "model": "mine", "local": {"lr": 0.01}, "evaluation": {"every": 0}}
    for ranks in (1, 3):
        run = on(ranks, table, model=make(training(quietly(assign))), shards=tmp_path / "two")[0]
        assert run.model.mean.tolist() == [5.0] * 6


def test_one_buffer_in_the_graph_and_another_in_place(job: dict[str, Any]) -> None:
    def between(self: Any, x: Tensor) -> None:
        self.mean.add_(x.mean(0), alpha=0.01)

    class Late(Odd):
        def forward(self, x: Tensor) -> Tensor:
            scaled = self.weight * self.scale
            if self.training:
                with torch.no_grad():
                    between(self, x)
            return x @ scaled.T

    run = fedmpi.train(
        job | {"model": "mine"}, model=lambda shape, outputs: Late(lambda self, x: None, *shape, outputs)
    )
    assert run.model.mean.abs().max() > 0


@pytest.mark.parametrize("strategy", ["fedavg", "scaffold", "iiadmm", "ditto", "feddyn"])
def test_a_mask_of_infinities_is_no_divergence(job: dict[str, Any], strategy: str) -> None:
    class Masked(nn.Linear):
        def __init__(self, features: int, outputs: int) -> None:
            super().__init__(features, outputs)
            self.register_buffer("mask", torch.full((2, 2), float("-inf")).triu(1))
            self.register_buffer("nothing", torch.tensor(float("nan")))

    job |= FIXED | {"model": "mine", "strategy": strategy}
    run = fedmpi.train(job, model=lambda shape, outputs: Masked(*shape, outputs))
    assert run.model.mask.tolist() == [[0.0, float("-inf")], [0.0, 0.0]]
    assert torch.isfinite(weights(run)).all()


def test_a_buffer_that_diverges_is_named(job: dict[str, Any]) -> None:
    def burst(self: Any, x: Tensor) -> None:
        self.idle[2] = float("inf")

    with pytest.raises(fedmpi.Refused, match=r"update of the buffer 'idle' is not finite"):
        fedmpi.train(job | {"model": "mine"}, model=make(training(quietly(burst))))


def back(self: Any, x: Tensor) -> None:
    self.steps.sub_(1)


def label(self: Any, x: Tensor) -> None:
    self.steps.fill_(int(x[0, 0] * 1000) + 7001)


def unset(self: Any, x: Tensor) -> None:
    self.ready.fill_(False)


def replace(self: Any, x: Tensor) -> None:
    self.weight = nn.Parameter(self.weight.detach().clone())


def grow(self: Any, x: Tensor) -> None:
    self.idle = torch.cat([self.idle, self.idle[:1]])


def empty(self: Any, x: Tensor) -> None:
    self.idle = None


def whole_numbers(self: Any, x: Tensor) -> None:
    self.idle = self.idle.long()


def move_frozen(self: Any, x: Tensor) -> None:
    self.frozen.mul_(0.99)


def move_frozen_unseen(self: Any, x: Tensor) -> None:
    self.frozen.data.mul_(0.99)


def late(self: Any, x: Tensor) -> None:
    if not hasattr(self, "late"):
        self.late = nn.Linear(2, 2)


def late_buffer(self: Any, x: Tensor) -> None:
    self.register_buffer("table", x[0].clone())


REFUSED = {
    "steps": (back, label),
    "weight": (replace,),
    "frozen": (move_frozen, move_frozen_unseen),
    "late": (late,),
    "table": (late_buffer,),
    "idle": (grow, empty, whole_numbers),
    "ready": (unset,),
}


@pytest.mark.parametrize(("name", "change"), [(name, change) for name, all_ in REFUSED.items() for change in all_])
def test_what_no_round_could_carry_is_refused_by_name(job: dict[str, Any], name: str, change: Change) -> None:
    with pytest.raises((JobError, fedmpi.Refused), match=f"'{name}'") as told:
        fedmpi.train(job | {"model": "mine", "cohort": {}}, model=make(training(quietly(change))))
    assert "\n" not in str(told.value)


def test_a_table_of_positions_that_was_expanded_serves(job: dict[str, Any]) -> None:
    class Placed(nn.Linear):
        def __init__(self, features: int, outputs: int) -> None:
            super().__init__(features, outputs)
            self.register_buffer("places", torch.arange(3).expand(2, 3))

    run = fedmpi.train(job | {"model": "mine"}, model=lambda shape, outputs: Placed(*shape, outputs))
    assert run.model.places.tolist() == [[0, 1, 2]] * 2


def test_memory_that_two_tensors_share_is_refused(job: dict[str, Any]) -> None:
    class Sharing(nn.Linear):
        def __init__(self, features: int, outputs: int) -> None:
            super().__init__(features, outputs)
            self.register_buffer("first", self.weight.data[0])

    with pytest.raises(JobError, match="'first'"):
        fedmpi.train(job | {"model": "mine"}, model=lambda shape, outputs: Sharing(*shape, outputs))
