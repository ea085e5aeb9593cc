"""A try-out leaves the model, the generators and the run's bits as they were."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import fedmpi
from fedmpi.plan import tryout
from tests.plan.test_tryout import tried
from tests.strategies import cases


class Everything(nn.Module):
    """State of every kind; `lock` cannot be copied."""

    def __init__(self, copies: bool) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)
        self.norm = nn.BatchNorm1d(6)
        self.frozen = nn.Parameter(torch.ones(6), requires_grad=False)
        self.register_buffer("flag", torch.zeros((), dtype=torch.int64))
        self.register_buffer("replaced", torch.zeros(6))
        self.loose, self.count, self.seen, self.notes = torch.zeros(6), 0, [0], {"n": 0}
        self.own = np.random.default_rng(1)
        if not copies:
            self.lock = (x for x in range(3))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            with torch.no_grad():
                self.flag += 1
                self.loose += 1
            self.count += 1
            self.seen.append(self.count)
            self.notes["n"] += 1
            self.own.random()
            random.random()
            np.random.random()
        return self.layer(self.norm(functional.dropout(x, 0.5, self.training)) * self.frozen)


@pytest.mark.parametrize("copies", [True, False])
@pytest.mark.parametrize("strategy", ["fedavg", "scaffold", "moon", "ditto"])
def test_the_model_and_the_generators_are_as_they_were(job: dict[str, Any], copies: bool, strategy: str) -> None:
    model = Everything(copies)
    tensors = {name: (tensor, tensor.data_ptr(), tensor.clone()) for name, tensor in model.state_dict().items()}
    where = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state())
    own, modes = model.own.bit_generator.state, [module.training for module in model.modules()]
    tried(job | {"local": {"batch": 4, "remainder": "drop"}, "cohort": {}}, model, strategy=strategy, data=job["data"])
    for name, tensor in model.state_dict().items():
        _, at, values = tensors[name]
        assert torch.equal(tensor, values), name
        assert tensor.data_ptr() == at, name
    assert (model.count, model.seen, model.notes, model.loose.sum()) == (0, [0], {"n": 0}, 0)
    assert model.own.bit_generator.state == own
    assert [module.training for module in model.modules()] == modes
    assert random.getstate() == where[0]
    assert np.random.get_state()[1].tolist() == where[1]
    assert torch.equal(torch.get_rng_state(), where[2])


@pytest.mark.parametrize("strategy", ["fedavg", "mime", "apfl", "ifca", "fedrep"])
def test_a_run_that_was_tried_gives_the_bits_of_one_that_was_not(
    job: dict[str, Any], strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job |= cases.over(strategy, job["local"]) | {"model": "mine", "rounds": 2, "threads": 1}
    one = fedmpi.train(job, model=cases.model)
    monkeypatch.setattr(tryout, "try_out", lambda plan: None)
    other = fedmpi.train(job, model=cases.model)
    for name, tensor in one.model.state_dict().items():
        assert torch.equal(tensor, other.model.state_dict()[name])
