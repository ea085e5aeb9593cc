"""K clients that learn as rows come to what they come to one by one, with every strategy that says that it can."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fedmpi.aggregation import ReducePath, pipeline
from fedmpi.comm import Solo
from fedmpi.flow import Client
from fedmpi.job import Aggregation, JobError
from fedmpi.strategies import STRATEGIES, Strategy, sound
from fedmpi.strategies.drift.fedprox import FedProx
from fedmpi.strategies.drift.scaffold import Scaffold
from tests import toy
from tests.crossings import passage_of
from tests.rows import Rows
from tests.strategies import cases

SHARDS = toy.blobs([9, 9, 9, 9, 9])
BATCHED = [name for name, kind in STRATEGIES.items() if kind(server=None).batched]


def made() -> nn.Module:
    """A model in which every strategy finds what it looks for, without buffers."""
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Tanh(), nn.Linear(6, 3))


def trained(strategy: Any, engine: Any, local: Mapping[str, Any] | None = None, server: Any = None) -> Any:
    """Three rounds of three clients, one of them new to each round; what is left, and the last crossing's counters."""
    rig = toy.rig(made(), SHARDS, local, strategy, server, engine=engine)
    seen = []
    for round in (1, 2, 3):
        rig.state.round = round
        clients = np.array([(round + place) % 5 for place in range(3)])
        for crossing in range(rig.strategy.passes):
            rig.state.crossing = crossing
            rig.engine.receive()
            passage = passage_of(rig.layout, [9, 9, 9], round=round, crossing=crossing, times=round % 2 + 1)
            object.__setattr__(passage, "clients", clients)
            path = ReducePath(Solo(), pipeline(Aggregation(), 9, 3), rig.layout, torch.device("cpu"))
            path.begin(passage)
            for learned in rig.engine.train(np.arange(3), passage):
                assert not path.add(learned.rows.clone(), passage.of(learned.places, {})).any()
                learned.save(rig.memory, passage)
                seen += [*learned.steps.tolist(), *learned.loss.tolist()]
            outcome = path.collect(passage, torch.zeros(1))
            assert outcome is not None
            rig.strategy.step(rig.state, *outcome)
        rig.state.crossing = 0
    kept = [rig.memory.load(client, 3) for client in range(5)] if rig.memory is not None else []
    return rig.state.planes.clone(), kept, np.array(seen)


def alike(strategy: Any, local: Mapping[str, Any] | None = None, server: Any = None) -> None:
    (planes, kept, seen), (others, their, also) = (trained(strategy, engine, local, server) for engine in (None, Rows))
    torch.testing.assert_close(others, planes, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(np.sort(also), np.sort(seen), rtol=1e-12)
    assert len(kept) == len(their)
    for one, other in zip(kept, their, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(other, one, rtol=1e-12, atol=1e-12)


def test_all_can() -> None:
    assert {*STRATEGIES} == {*BATCHED}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_clients_as_rows_come_to_what_they_come_to_one_by_one(strategy: str) -> None:
    tables = cases.over(strategy, {"lr": 0.1, "batch": 4, "epochs": 2})
    before = Rows.together
    alike(strategy, tables["local"], tables["server"])
    assert (Rows.together - before == 9) == (strategy in BATCHED)


@pytest.mark.parametrize("strategy", ["fedavg", "fedprox", "scaffold", "fednova", "ditto", "fedrep"])
@pytest.mark.parametrize(
    "local", [{"optimizer": {"name": "sgd", "momentum": 0.9}}, {"clip": 0.3}, {"l2": 0.1, "l1": 0.01}], ids=str
)
def test_with_momentum_clips_and_penalties_too(strategy: str, local: dict[str, Any]) -> None:
    if cases.takes(strategy, {"lr": 0.1, **local}):
        alike(strategy, {"batch": 4, "epochs": 2, **local})


@pytest.mark.parametrize("option", [1, 2])
def test_scaffold_with_either_option(option: Any) -> None:
    alike(lambda server: Scaffold(server, option), {"batch": 4, "epochs": 2})


class Sideways(Strategy):
    """A rule that is not written on the last axis."""

    def correct(self, grads: Tensor, values: Tensor, received: Tensor, client: Client) -> None:
        grads[0] += 1


class Farther(Scaffold):
    def loss(self, *args: Any) -> Tensor:
        return super().loss(*args)


class Surely(Farther):
    batched = True


class Later(FedProx):
    def prepare(self, client: Client) -> None: ...


def test_a_rule_of_one_s_own_is_not_batched_unless_it_says_so() -> None:
    assert not Sideways.batched
    assert not Farther.batched
    assert Surely.batched
    assert not type("Below", (Surely,), {"learn": print}).batched
    assert Later.batched  # `prepare` sees one client
    alike(Sideways)


def test_notes_are_of_the_kinds_of_memory_and_begin_as_zeros() -> None:
    wrong = type("Wrong", (Strategy,), {"notes": {"a": "scaler"}})
    with pytest.raises(
        JobError, match="wrong has notes\\['a'\\] = 'scaler'; there are model, trained, scalar; did you"
    ):
        sound(wrong(server=None), "wrong")
    seen = []

    class Notes(Strategy):
        notes: Mapping[str, str] = {"a": "scalar", "b": "trained", "c": "model"}

        def prepare(self, client: Client) -> None:
            seen.append([part.clone() for part in client.notes.values()])
            for part in client.notes.values():
                part.fill_(7.0)

    rig = toy.rig(toy.made("mlp"), SHARDS, strategy=Notes)
    for client in (0, 1):
        rig.train(client)
    trained = rig.layout.trained.stop
    assert [(part.shape, part.dtype) for part in seen[1]] == [
        (torch.Size([size]), torch.float64) for size in (1, trained, rig.layout.size)
    ]
    assert not any(part.any() for parts in seen for part in parts)
