"""What a rank sends is made once in a crossing: a rank's stages may change it, and a retry sends it again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fedmpi.aggregation import STAGES, ReducePath, Stage, pipeline
from fedmpi.flow import Layout, Passage
from fedmpi.job import Aggregation, JobError
from tests.crossings import add, passage_of
from tests.fake import Fake, launch

CPU = torch.device("cpu")
CLIENTS, CAP = 6, 8
LAYOUT = Layout(10, slice(0, 8), torch.float32, 2, ("examples", "uniform", "none"), ("a",))


class Halves(Stage):
    """A rank's planes as int8, a number for each pair of values, in steps of 1/8."""

    acts_on = "rank"
    place = "weighed"

    def wire(self, size: int, dtype: torch.dtype) -> tuple[int, torch.dtype]:
        self.dtype = dtype
        return size // 2, torch.int8

    def encode(self, wire: Tensor, passage: Passage) -> Tensor:
        return wire.view(-1, 2).sum(1).mul(4).round().to(torch.int8)

    def decode(self, wire: Tensor, passage: Passage) -> Tensor:
        return wire.to(self.dtype).div(8).repeat_interleave(2)


class Drawn(Stage):
    """Noise on a rank's sum, from a generator that never draws the same twice."""

    acts_on = "rank"
    place = "weighed"

    def __init__(self, deviation: float = 1.0) -> None:
        self.deviation, self.generator = deviation, torch.Generator()

    def encode(self, wire: Tensor, passage: Passage) -> Tensor:
        noise = torch.randn(wire.shape, generator=self.generator, dtype=torch.float64)
        return wire.add_(noise.to(wire.dtype), alpha=self.deviation)


class Wrong(Halves):
    def decode(self, wire: Tensor, passage: Passage) -> Tensor:
        return wire.to(self.dtype)


class Early(Stage):
    acts_on = "rank"


@pytest.fixture(autouse=True)
def own(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, kind in {"halves": Halves, "drawn": Drawn, "wrong": Wrong, "early": Early}.items():
        monkeypatch.setitem(STAGES, name, kind)


def update(client: int) -> Tensor:
    """Pairs of equal values in steps of 1/8, small enough for the int8 of all clients."""
    pairs = np.random.default_rng(client).integers(-2, 3, LAYOUT.up * LAYOUT.size // 2).repeat(2) / 8
    return torch.tensor([*pairs, 0.0, 0.0, 0.1 * client], dtype=LAYOUT.dtype)


def crossing(size: int, stages: list[Any], serving: int, again: int = 1, stage: bool = False) -> list[Any]:
    """Return what each collection gives home, with the tally; `serving` is the lowest rank with clients."""

    def work(comm: Fake) -> list[Any]:
        chain = pipeline(Aggregation.model_validate({"stages": stages}), CAP, CLIENTS)
        path = ReducePath(comm, chain, LAYOUT, CPU, stage)
        outcomes = []
        for _ in range(2):  # a crossing leaves nothing for the next
            passage = passage_of(LAYOUT, [CAP] * CLIENTS)
            path.begin(passage)
            for client in range(CLIENTS):
                if serving + client % (size - serving) == comm.me:
                    add(path, update(client), passage, client)
            tally = torch.full((3,), float(comm.me + 1), dtype=torch.float64)
            for _ in range(again):
                outcome = path.collect(passage, tally)
                if outcome is not None:
                    outcomes.append((outcome[0].clone(), outcome[1], tally.tolist()))
        return outcomes

    home: list[Any] = launch(size, work)[0]
    return home


PLACES = [(1, 0), (2, 0), (2, 1), (3, 0), (3, 1)]
every_place = pytest.mark.parametrize(("size", "serving"), PLACES, ids=str)


@every_place
@pytest.mark.parametrize("stage", [False, True], ids=["straight", "staged"])
def test_a_rank_s_sum_travels_as_int8_of_half_the_size_and_its_tail_exactly(
    size: int, serving: int, stage: bool
) -> None:
    everyone = np.array([update(client).double().numpy() for client in range(CLIENTS)])
    for planes, sums, _ in crossing(size, ["halves"], serving, stage=stage):
        np.testing.assert_allclose(planes.numpy().ravel(), everyone[:, :20].mean(0), rtol=1e-6, atol=1e-7)
        assert (sums["weight"], sums["clients"]) == (CLIENTS, CLIENTS)
        assert sums["a"] == pytest.approx(everyone[:, -1].sum(), rel=1e-6)  # int8 has no tenths


@every_place
@pytest.mark.parametrize(
    "stages",
    [[], ["fixed-point"], [{"name": "clip", "bound": 1.0}, "fixed-point"], ["halves"], ["drawn"], ["drawn", "halves"]],
    ids=str,
)
@pytest.mark.parametrize("stage", [False, True], ids=["straight", "staged"])
def test_a_crossing_made_again_sends_the_same_words_and_the_same_tally(
    size: int, serving: int, stages: list[Any], stage: bool
) -> None:
    stages = [{"name": "drawn", "deviation": 0.01} if name == "drawn" else name for name in stages]
    first, *others, last, final = crossing(size, stages, serving, again=3, stage=stage)
    for outcome in (others[0], others[1]):
        assert torch.equal(outcome[0], first[0])
        assert outcome[1:] == first[1:]
    assert first[2] == [size * (size + 1) / 2] * 3
    assert torch.equal(last[0], final[0])
    if {"name": "drawn", "deviation": 0.01} in stages and "halves" not in stages:
        assert not torch.equal(first[0], last[0])  # the next crossing draws anew


def test_noise_behind_clip_has_the_deviation_meant() -> None:
    """Deviation s on each of R ranks' sums is s sqrt(R) on the sum, and divided by the clients in the mean."""
    size, deviation, draws = 3, 0.5, []
    stages = [{"name": "clip", "bound": 1e6}, {"name": "drawn", "deviation": deviation}]
    clean = crossing(size, [{"name": "clip", "bound": 1e6}], 0)[0][0]

    def work(comm: Fake) -> Any:
        path = ReducePath(comm, pipeline(Aggregation.model_validate({"stages": stages}), CAP, CLIENTS), LAYOUT, CPU)
        path.stages[-1].generator.manual_seed(comm.me)  # type: ignore[attr-defined]
        means = []
        for _ in range(400):
            passage = passage_of(LAYOUT, [CAP] * CLIENTS)
            path.begin(passage)
            for client in range(comm.me, CLIENTS, size):
                add(path, update(client), passage, client)
            outcome = path.collect(passage, torch.zeros(1, dtype=torch.float64))
            means += [outcome[0].clone()] if outcome else []
        return means

    draws = torch.stack(launch(size, work)[0]) - clean
    assert float(draws.std()) == pytest.approx(deviation * size**0.5 / CLIENTS, rel=0.05)
    assert float(draws.mean()) == pytest.approx(0.0, abs=0.01)


def test_an_update_after_the_close_is_refused() -> None:
    def work(comm: Fake) -> None:
        path = ReducePath(comm, pipeline(Aggregation(), CAP, CLIENTS), LAYOUT, CPU)
        passage = passage_of(LAYOUT, [CAP])
        path.begin(passage)
        path.collect(passage, torch.zeros(1, dtype=torch.float64))
        add(path, update(0), passage)

    with pytest.raises(RuntimeError, match="closed"):
        launch(1, work)


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        (["early"], "early acts on a rank's sum, which is of weighted values; say place = 'weighed'"),
        (["halves", "fixed-point"], "fixed-point acts on each client's update, but halves before it"),
        (["halves", {"name": "clip", "bound": 1}], "put clip first"),
        (["wrong"], "Wrong decoded a sum to 10 values of float32, which had 20 values of float32"),
    ],
    ids=str,
)
def test_what_cannot_be_undone_is_refused(stages: list[Any], words: str) -> None:
    with pytest.raises(JobError) as refused:
        crossing(1, stages, 0)
    assert words in str(refused.value)
