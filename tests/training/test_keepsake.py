"""Laws of clients' keepsakes: what one saves is what it gets back, and nobody gets another's."""

from __future__ import annotations

import pytest
import torch

from fedmpi.flat import FlatModel
from fedmpi.job import JobError
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
    return Keepsake(kind, flat, memory, {}, 1), flat


def save(keepsake: Keepsake, client: int, round: int) -> None:
    """Save what a client keeps, as the loop does."""
    assert keepsake.memory is not None
    keepsake.take(keepsake.parts)
    keepsake.memory.save(client, round, keepsake.vector)


@pytest.mark.parametrize("strategy", KEEPING)
def test_a_client_gets_back_what_it_saved_and_a_new_one_the_first(strategy: str) -> None:
    keepsake, _ = kept_by(strategy)
    first = {name: part.clone() for name, part in keepsake.parts.items()}
    for client in (3, 5):
        assert not keepsake.recall(client, 0)
        for part in keepsake.parts.values():
            part.fill_(float(client))
        save(keepsake, client, 1)
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
    save(keepsake, 0, 1)
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
    keepsake = Keepsake(kind, flat, None, {}, 1)
    assert not len(keepsake.vector)
    assert not keepsake.recall(0, 1)


@pytest.mark.parametrize("strategy", ["scaffold", "fedper", "fedavg"])
def test_what_the_stages_keep_lies_behind_and_comes_back_too(strategy: str) -> None:
    kind = STRATEGIES[strategy](server=None)
    model = toy.made("mlp")
    flat = FlatModel(model, kind.stays(model), torch.float64)
    keeps = {"rest": "planes", "scale": "scalar", "seen": "model", "part": "trained"}
    own, width = (sum(keepsake_sizes(kind, flat, some, 2).values()) for some in ({}, keeps))
    trained = flat.trained.stop - flat.shared.start
    sizes = {"rest": 2 * flat.size, "scale": 1, "seen": flat.size, "part": trained}
    assert width == own + sum(sizes.values())
    keepsake = Keepsake(kind, flat, Memory(None, width, torch.float64), keeps, 2)
    assert {name: len(part) for name, part in keepsake.staged.items()} == sizes
    for part in keepsake.staged.values():
        part.fill_(3.0)
    save(keepsake, 1, 1)
    assert not keepsake.recall(2, 1)
    assert not any(part.any() for part in keepsake.staged.values())
    assert keepsake.recall(1, 1)
    assert all((part == 3.0).all() for part in keepsake.staged.values())


def test_a_memory_laid_elsewhere_is_taken_over_and_one_of_another_shape_is_refused() -> None:
    """A rule may rebind what it should change in place: nothing of it is lost."""
    keepsake, _ = kept_by("feddyn")
    keepsake.recall(0, 0)
    [name] = keepsake.parts
    keepsake.take({name: torch.full_like(keepsake.parts[name], 2.0)})
    assert (keepsake.vector == 2.0).all()
    for wrong in ({name: torch.zeros(1, 2)}, {name: 3.0}, {}):
        with pytest.raises(JobError, match="memory 'gradient'; it should be a tensor"):
            keepsake.take(wrong)  # type: ignore[arg-type]
