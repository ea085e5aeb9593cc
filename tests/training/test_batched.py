"""Clients that train at once come to what they come to one by one, whoever trains beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fedmpi.strategies import STRATEGIES, Strategy
from fedmpi.training import Batched, Sequential
from fedmpi.training.batched.stream import order
from fedmpi.training.batches import batches
from tests import toy
from tests.crossings import passage_of
from tests.strategies import cases

RAGGED, EQUAL = [11, 4, 23, 1, 8, 8, 3], [9, 9, 9, 9, 9, 9, 9]
ROUNDS = 3
every_size = pytest.mark.parametrize("sizes", [RAGGED, EQUAL], ids=["ragged", "equal"])


def made() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Tanh(), nn.Linear(6, 3))


def trained(
    kind: Callable[..., Any],
    sizes: Sequence[int],
    model: Callable[[], nn.Module] = made,
    cohort: Sequence[int] | None = None,
    hands: int = 1,
    **others: Any,
) -> Any:
    """Updates, memory, losses and steps of some rounds by client, and the engines of so many `hands`."""
    shards, made_of = toy.blobs(sizes), []

    def engine(*given: Any, **named: Any) -> Any:
        made_of.append(kind(*given, **named))
        return made_of[-1]

    rig = toy.rig(model(), shards, engine=engine, **others)
    clients = np.arange(len(sizes)) if cohort is None else np.array(cohort)
    seen: dict[Any, Any] = {}
    for round in range(1, ROUNDS + 1):
        rig.state.round = round
        for crossing in range(rig.strategy.passes):
            rig.state.crossing = crossing
            rig.engine.receive()
            passage = passage_of(rig.layout, shards.sizes(clients), round=round, crossing=crossing, times=round % 2 + 1)
            object.__setattr__(passage, "clients", clients)
            mean = torch.zeros(rig.layout.up, rig.layout.size, dtype=rig.layout.dtype)
            cut = rig.engine.groups(clients) if kind is not Sequential and hands > 1 else [list(range(len(clients)))]
            for hand in range(hands):
                places = np.array([place for group in cut[hand::hands] for place in group], np.int64)
                for learned in rig.engine.train(places, passage):
                    for row, place in enumerate(learned.places.tolist()):
                        kept = None if learned.keepsakes is None else learned.keepsakes[row].clone()
                        numbers = learned.loss[row], learned.steps[row], learned.examples[row]
                        seen[round, crossing, int(clients[place])] = learned.rows[row].clone(), *numbers, kept
                    learned.save(rig.memory, passage)
            for client in clients.tolist():
                mean += rig.layout.planes(seen[round, crossing, client][0]) / len(clients)
            rig.strategy.step(rig.state, mean, {"weight": 1.0, "clients": 5.0, **dict.fromkeys(rig.layout.sums, 0.5)})
        rig.state.crossing = 0
    return seen, made_of[0]


def near(one: Mapping[Any, Any], other: Mapping[Any, Any], within: float = 1e-12) -> None:
    assert one.keys() == other.keys()
    for key, (row, loss, *rest, kept) in one.items():
        also, lost, *others, keeps = other[key]
        torch.testing.assert_close(also, row, rtol=within, atol=within)
        assert lost == pytest.approx(loss, rel=within, abs=within, nan_ok=True)
        assert others == rest
        assert (keeps is None) == (kept is None)
        if kept is not None:
            torch.testing.assert_close(keeps, kept, rtol=within, atol=within)


@every_size
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_comes_to_the_same(strategy: str, sizes: Sequence[int]) -> None:
    table = cases.over(strategy, {"lr": 0.05, "batch": 4, "epochs": 2})
    others = {"strategy": strategy, "local": table["local"], "server": table["server"]}
    alone, _ = trained(Sequential, sizes, **others)
    together, engine = trained(partial(Batched, cohort=7, clients=3), sizes, **others)
    near(alone, together)
    one = STRATEGIES[strategy](server=None)
    assert (engine.reason is None) == (one.batched and one.plain_loss and not one.whole_client)
    assert (engine.many is not None) == (engine.reason is None)


LOCALS = [
    {"l1": 0.01}, {"l2": 0.1}, {"clip": 0.5}, {"optimizer": {"name": "sgd", "momentum": 0.9}}, {"optimizer": "adam"},
    {"batch": 1}, {"batch": 50}, {"batch": 0}, {"remainder": "drop"}, {"remainder": "merge"},
]  # fmt: skip


@every_size
@pytest.mark.parametrize("strategy", ["fedavg", "fedprox", "ditto"])
@pytest.mark.parametrize("local", LOCALS, ids=str)
def test_with_every_kind_of_local_training(local: Mapping[str, Any], strategy: str, sizes: Sequence[int]) -> None:
    table = {"batch": 4, "epochs": 2, **local}
    alone, _ = trained(Sequential, sizes, strategy=strategy, local=table)
    together, engine = trained(partial(Batched, cohort=7, clients=3), sizes, strategy=strategy, local=table)
    near(alone, together)
    assert (engine.many is None) == (table.get("remainder") == "merge" or not table["batch"])


@every_size
def test_in_single_precision_too(sizes: Sequence[int]) -> None:
    alone, _ = trained(Sequential, sizes, dtype=torch.float32)
    together, _ = trained(partial(Batched, cohort=7, clients=3), sizes, dtype=torch.float32)
    near(alone, together, 2e-6)


@every_size
@pytest.mark.parametrize("strategy", ["fedavg", "scaffold", "ditto"])
def test_a_client_s_bits_depend_neither_on_its_rank_nor_on_who_trains_beside_it(
    strategy: str, sizes: Sequence[int]
) -> None:
    kind = partial(Batched, cohort=7, clients=3)
    local = {"batch": 4, "epochs": 2}
    one, engine = trained(kind, sizes, strategy=strategy, local=local)
    assert engine.many is not None
    for hands in (2, 3):
        other, _ = trained(kind, sizes, strategy=strategy, local=local, hands=hands)
        near(one, other, 0.0)


@every_size
@pytest.mark.parametrize("clients", [2, 3, 4, 7])
def test_groups_cover_everybody_once_and_are_never_larger_than_asked(sizes: Sequence[int], clients: int) -> None:
    _, engine = trained(partial(Batched, cohort=7, clients=clients), sizes)
    groups = engine.groups(np.arange(7))
    assert sorted(place for group in groups for place in group) == list(range(7))
    assert max(map(len, groups)) <= clients
    assert len(groups) == -(-7 // clients)


def test_clients_without_examples_keep_what_they_have() -> None:
    alone, _ = trained(Sequential, [9, 0, 9, 0, 4])
    together, _ = trained(partial(Batched, cohort=5, clients=5), [9, 0, 9, 0, 4])
    near(alone, together)


@pytest.mark.parametrize("remainder", ["keep", "drop"])
@pytest.mark.parametrize(("examples", "batch"), [(1, 4), (4, 4), (5, 4), (11, 4), (8, 4), (3, 1), (7, 10)])
def test_batches_are_those_of_one_client(examples: int, batch: int, remainder: str) -> None:
    x, y = torch.arange(float(examples))[:, None], torch.arange(examples)
    one, other = (torch.Generator().manual_seed(5) for _ in range(2))
    chosen, counts = order(examples, batch, 9, remainder, one)
    task: Any = toy.Classify()
    for at, (_, targets) in enumerate(batches(x, y, task, batch, 9, other, torch.device("cpu"), remainder)):
        assert chosen[at, : counts[at]].tolist() == targets.tolist()
    assert chosen.shape == (9, batch)


class Convolved(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Conv1d(1, 2, 2), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.first(x[:, None]).flatten(1))
        return out


class Dropping(nn.Module):
    """Dropout that no module tells of."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(nn.functional.dropout(x, 0.5, self.training))
        return out


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(x if x.sum() > 0 else 2 * x)
        return out


@pytest.mark.parametrize("model", [toy.dropout, toy.normed, Convolved, Dropping, Branching])
def test_a_model_that_cannot_be_batched_trains_one_by_one(model: Callable[[], nn.Module]) -> None:
    sizes = [10, 4, 22, 2, 8]
    start = torch.manual_seed(1).get_state()
    alone, _ = trained(Sequential, sizes, model=model)
    torch.set_rng_state(start)
    together, engine = trained(partial(Batched, cohort=5, clients=3), sizes, model=model)
    near(alone, together, 1e-10)
    assert engine.reason is not None
    assert engine.many is None


@pytest.mark.parametrize("model", [toy.Tied, toy.frozen, toy.mlp, toy.linear])
def test_models_with_peculiar_weights_can(model: Callable[[], nn.Module]) -> None:
    def again() -> nn.Module:
        torch.manual_seed(2)
        return model()

    alone, _ = trained(Sequential, RAGGED, model=again)
    together, engine = trained(partial(Batched, cohort=7, clients=3), RAGGED, model=again)
    near(alone, together, 1e-11)
    assert (engine.many is None) == (model is toy.Tied)  # it has buffers


class Rebinding(Strategy):
    memory: Mapping[str, str] = {"own": "model"}
    batched = True

    def learn(self, client: Any, learner: Any) -> None:
        learner.train(client, self.rule)
        client.memory["own"] = client.values + 1


def test_memory_that_a_strategy_rebinds_is_taken_over() -> None:
    alone, _ = trained(Sequential, EQUAL, strategy=Rebinding)
    together, engine = trained(partial(Batched, cohort=7, clients=3), EQUAL, strategy=Rebinding)
    assert engine.many is not None
    near(alone, together)


class Box:
    at = 0


class Turning(nn.Linear):
    """A model that becomes another when its box says so, which no recording sees."""

    def __init__(self) -> None:
        super().__init__(4, 3)
        self.box = Box()

    def forward(self, x: Tensor) -> Tensor:
        hidden = super().forward(x)
        return hidden if not self.box.at else -3.0 * hidden


@pytest.mark.parametrize("strategy", ["fedavg", "scaffold", "apfl"])
def test_a_model_that_turns_into_another_is_noticed(strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a later round, after so many steps; what was under way is begun again, eagerly."""
    from fedmpi.training.batched import many as module

    monkeypatch.setattr(module, "APART", 4)
    kinds: list[Any] = []

    def play(kind: Callable[..., Any]) -> dict[int, Tensor]:
        torch.manual_seed(3)
        model = Turning()
        clients = np.arange(len(EQUAL))
        rig = toy.rig(
            model, toy.blobs(EQUAL), strategy=strategy, engine=lambda *g, **n: kinds.append(kind(*g, **n)) or kinds[-1]
        )
        for round in (1, 2):
            rig.state.round = round
            model.box.at = round - 1
            rig.engine.receive()
            passage = passage_of(rig.layout, EQUAL, round=round)
            object.__setattr__(passage, "clients", clients)
            rows = {}
            for learned in rig.engine.train(clients, passage):
                learned.save(rig.memory, passage)
                rows |= dict(zip(learned.places.tolist(), learned.rows.clone(), strict=True))
        return rows

    eager, batched = play(Sequential), play(partial(Batched, cohort=7))
    counted = kinds[-1].counted()
    assert counted["parted"] == 1
    assert counted["alone"] == len(EQUAL)
    assert kinds[-1].many is None
    for place, row in eager.items():
        torch.testing.assert_close(batched[place], row)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_no_step_parts_where_nothing_changes(strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from fedmpi.training.batched import many as module

    monkeypatch.setattr(module, "APART", 0)
    compared = []
    compare = module.Many._compare
    monkeypatch.setattr(module.Many, "_compare", lambda *parts: (compared.append(1), compare(*parts)))
    table = cases.over(strategy, {"lr": 0.05, "batch": 4, "epochs": 2})
    _, engine = trained(
        partial(Batched, cohort=7), RAGGED, strategy=strategy, local=table["local"], server=table["server"]
    )
    assert engine.counted()["parted"] == 0
    assert bool(compared) == (engine.reason is None)
