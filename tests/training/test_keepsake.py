"""Laws of clients' keepsakes: what one saves is what it gets back, and nobody gets another's."""

from __future__ import annotations

import pytest
import torch

from fedmpi.flat import FlatModel
from fedmpi.records.memory import Memory
from fedmpi.strategies import STRATEGIES
from fedmpi.training.keepsake import Keepsake, keepsake_sizes
from tests import toy

KEEPING = [name for name, kind in STRATEGIES.items() if kind(server=None).memory]


def kept_by(strategy: str) -> tuple[Keepsake, FlatModel]:
    kind = STRATEGIES[strategy](server=None)
    model = toy.made("mlp")
    flat = FlatModel(model, kind.stays(model), torch.float64)
    memory = Memory(None, sum(keepsake_sizes(kind, flat).values()), torch.float64)
    return Keepsake(kind, flat, memory), flat


@pytest.mark.parametrize("strategy", KEEPING)
def test_a_client_gets_back_what_it_saved_and_a_new_one_the_first(strategy: str) -> None:
    keepsake, _ = kept_by(strategy)
    first = {name: part.clone() for name, part in keepsake.parts.items()}
    for client in (3, 5):
        assert not keepsake.recall(client, 0)
        for part in keepsake.parts.values():
            part.fill_(float(client))
        keepsake.save(client, 1)
    for client in (3, 5):
        assert keepsake.recall(client, 1)
        assert all((part == client).all() for part in keepsake.parts.values())
    assert not keepsake.recall(4, 1)
    assert all(torch.equal(part, first[name]) for name, part in keepsake.parts.items())


@pytest.mark.parametrize("strategy", ["fedper", "fedrep"])
def test_the_private_part_of_a_model_comes_and_goes_with_its_client(strategy: str) -> None:
    keepsake, flat = kept_by(strategy)
    private = flat.values[: flat.shared.start]
    keepsake.recall(0, 0)
    private.fill_(7.0)
    keepsake.save(0, 1)
    private.zero_()
    keepsake.recall(1, 1)  # a new one: the received model's stays in place
    assert not private.any()
    keepsake.recall(0, 1)
    assert (private == 7.0).all()


def test_who_keeps_nothing_needs_no_memory() -> None:
    kind = STRATEGIES["fedavg"](server=None)
    model = toy.made("mlp")
    flat = FlatModel(model, kind.stays(model), torch.float64)
    assert keepsake_sizes(kind, flat) == {}
    keepsake = Keepsake(kind, flat, None)
    keepsake.save(0, 1)
    assert not keepsake.recall(0, 1)
