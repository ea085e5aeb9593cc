"""A strategy of one's own is what it overrides: a trait that nobody set beside it cannot leave a method unused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fedmpi
from fedmpi.flow import Client, Learner
from fedmpi.job import JobError
from fedmpi.strategies import STRATEGIES, Strategy, sound
from fedmpi.strategies.drift.moon import MOON
from fedmpi.strategies.drift.scaffold import Scaffold
from fedmpi.strategies.personal.fedper import FedPer
from fedmpi.strategies.server.fedavg import FedAvg
from tests import toy

SHARDS = toy.blobs([11, 4, 23])
LOOP = ("fedavg", "fedprox", "feddecorr", "moon", "ditto", "fine-tuning", "fedper", "fedbn", "fedavgm", "fedexp")
OWN_STEPS = ("fedsgd", "normalised-sgd", "mime", "iiadmm", "iceadmm", "pfedme", "apfl", "fedrep", "per-fedavg")


def upwards(self: Strategy, grads: Tensor, values: Tensor, received: Tensor, client: Client) -> None:
    grads.fill_(-1.0)


@pytest.mark.parametrize("name", LOOP)
def test_a_correction_is_made_whatever_it_is_laid_over(name: str) -> None:
    """With every gradient at -1 each value of the trained part has gone up by lr times the steps, whatever the data."""
    kind: Any = type("Own", (STRATEGIES[name],), {"correct": upwards})
    rig = toy.rig(toy.made("normed"), SHARDS, {"batch": 0, "epochs": 3, "lr": 0.25}, strategy=kind)
    wire = rig.learned(2)
    trained = rig.layout.planes(wire)[0][rig.layout.trained]
    real = rig.flat.named(rig.layout.planes(wire)[0])
    assert trained.abs().sum() > 0
    for parameter, _ in rig.flat.model.named_parameters():
        if parameter in real:
            torch.testing.assert_close(real[parameter], torch.full_like(real[parameter], 0.75))


def nothing(*given: Any) -> Any:
    return {}


class Mixed:
    correct = upwards


@pytest.mark.parametrize(
    ("kind", "traits"),
    [
        (FedAvg, {"corrects": False, "passes": 1, "personalises": False, "common": True}),
        (type("A", (Strategy,), {"correct": upwards}), {"corrects": True}),
        (type("B", (Mixed, Strategy), {}), {"corrects": True}),
        (type("C", (type("A", (Strategy,), {"correct": upwards}),), {}), {"corrects": True}),
        (type("D", (Strategy,), {"correct": upwards, "corrects": True}), {"corrects": True}),
        (type("E", (Strategy,), {"survey": nothing}), {"passes": 2}),
        (type("F", (Strategy,), {"personal": nothing}), {"personalises": True, "common": True}),
        (type("G", (Strategy,), {"stays": nothing}), {"personalises": True, "common": False}),
        (type("H", (Strategy,), {"stays": nothing, "common": True}), {"common": True}),
        (type("I", (FedPer,), {"personal": nothing}), {"personalises": True, "common": False}),
        (Scaffold, {"corrects": True, "personalises": False}),
    ],
)  # fmt: skip
def test_what_is_overridden_says_what_it_is(kind: type[Strategy], traits: Mapping[str, Any]) -> None:
    made = kind(None)
    assert {name: getattr(made, name) for name in traits} == traits
    assert sound(made, "own") is made


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_is_what_it_says(name: str) -> None:
    made = STRATEGIES[name](server=None)
    assert sound(made, name) is made


@pytest.mark.parametrize(
    ("base", "parts", "words"),
    [
        ("fedavg", {"up": "job"}, "up = 'job'; it should be a tuple"),
        ("fedavg", {"up": ()}, "up = ()"),
        ("fedavg", {"up": ("exampels",)}, "none; did you mean 'examples'?"),
        ("fedavg", {"sums": {"mass": "jobs"}}, "sums['mass'] = 'jobs'"),
        ("fedavg", {"memory": {"own": "models"}}, "memory['own'] = 'models'"),
        ("fedavg", {"down": 0}, "down = 0"),
        ("fedavg", {"models": 2}, "2 models and 1 planes down"),
        ("fedavg", {"passes": 2}, "passes = 2, but its survey is that of plain averaging"),
        ("fedavg", {"corrects": True}, "corrects = True, but its correct is that of plain averaging"),
        ("fedavg", {"corrects": False, "correct": upwards}, "corrects = False, but its correct would never be called"),
        ("fedavg", {"alone": True}, "alone = True, but its memory holds no model named 'own'"),
        ("fedavg", {"settle": nothing}, "a method `settle`, which is not called"),
        ("mime", {"passes": 1}, "passes = 1, but its survey would never be called"),
        *((name, {"correct": upwards}, "its correct would never be called") for name in OWN_STEPS),
    ],
)  # fmt: skip
def test_what_contradicts_is_refused_by_name(base: str, parts: dict[str, Any], words: str) -> None:
    kind: Any = type("Own", (STRATEGIES[base],), parts)
    with pytest.raises(JobError) as refused:
        sound(kind(server=None), "mine:Own")
    assert str(refused.value).startswith("strategy: mine:Own has ")
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_home_s_vectors_of_a_strategy_from_earlier_versions_are_in_its_checkpoints() -> None:
    strategy = toy.rig(toy.made("normed"), SHARDS, {"batch": 0}).strategy
    strategy.kept = {"m": torch.ones(3)}
    strategy.kept["v"] = torch.zeros(3)
    assert {"m", "v"} <= strategy.state().keys()


def gives(sums: Mapping[str, float]) -> Any:
    class Gives(Strategy):
        sums: ClassVar[Mapping[str, str]] = {"mass": "job", "norm": "none"}

        def result(self, client: Client) -> Mapping[str, float]:
            return given

    given = sums
    return Gives


def test_a_sum_that_was_not_declared_is_refused_and_one_left_out_is_0() -> None:
    rig = toy.rig(toy.made("linear"), SHARDS, strategy=gives({"mass": 2.5}))
    np.testing.assert_array_equal(rig.layout.tail(rig.learned(0))[2:].numpy(), [2.5, 0.0])
    rig = toy.rig(toy.made("linear"), SHARDS, strategy=gives({"mass": 2.5, "nrom": 1.0}))
    with pytest.raises(
        JobError, match=r"Gives gave the sum 'nrom', which its `sums` does not declare; did you mean 'norm'"
    ):
        rig.learned(0)


class Partly(Strategy):
    """It writes one of its two planes, and of that the trained part alone."""

    up = ("job", "job")

    def result(self, client: Client) -> Mapping[str, float]:
        torch.sub(client.values[client.trained], client.received[client.trained], out=client.planes[0, client.trained])
        return {}


def test_what_a_result_leaves_of_its_planes_is_0_and_not_another_client_s() -> None:
    rig = toy.rig(toy.made("normed"), SHARDS, strategy=Partly)
    rig.train(0)[0].rows.fill_(7.0)  # of a client before it
    planes = rig.layout.planes(rig.train(2)[0].rows[0])
    assert planes[0, rig.layout.trained].any()
    assert not planes[0, rig.layout.trained.stop :].any()
    assert not planes[1].any()


def test_moon_keeps_its_term_beside_a_correction() -> None:
    class Lone(MOON):
        def correct(self, grads: Tensor, values: Tensor, received: Tensor, client: Client) -> None:
            grads.zero_()

        def loss(self, task: Any, model: nn.Module, inputs: Tensor, y: Tensor, client: Client) -> Tensor:
            self.called = True
            return super().loss(task, model, inputs, y, client)

    rig = toy.rig(toy.made("mlp"), SHARDS, strategy=Lone)
    assert not rig.layout.planes(rig.learned(1)).any()
    assert rig.strategy.called


class Tuned(Strategy):
    """Nothing but a model of each client's own."""

    def personal(self, client: Client, learner: Learner) -> None:
        client.values.zero_()


def test_clients_own_models_are_scored_where_a_strategy_makes_them(tmp_path: Path) -> None:
    clients = {f"c{place}": (x.float().numpy(), y.numpy()) for place, (x, y) in enumerate(SHARDS.pairs)}
    fedmpi.write_shards(tmp_path / "shards", clients, holdout=0.5, classes=("a", "b", "c"))
    job = {"rounds": 1, "data": {"shards": str(tmp_path / "shards")}, "model": "logistic"}
    done = fedmpi.train(job | {"strategy": "tests.strategies.test_own:Tuned"})
    assert {"clients", "personal"} <= set(done.lines[-1]["evaluation"])
