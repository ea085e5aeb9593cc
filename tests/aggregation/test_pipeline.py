"""Where the weighing goes, and which pipelines are refused."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from fedmpi.aggregation import STAGES, ReducePath, pipeline
from fedmpi.aggregation.stages import Stage, Weigh
from fedmpi.comm import Solo
from fedmpi.flow import Layout, Passage
from fedmpi.job import Aggregation, Component, JobError
from tests.crossings import add, passage_of

OPTIONS = {"clip": {"bound": 1.0}}


def made(stages: list[Any], cap: int = 10, clients: int = 5) -> list[Any]:
    return pipeline(Aggregation.model_validate({"stages": stages}), cap, clients)


def refusal(stages: list[Any], cap: int = 10, clients: int = 5) -> str:
    with pytest.raises(JobError) as refused:
        made(stages, cap, clients)
    text = str(refused.value)
    assert text.startswith("aggregation.stages")
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    "names",
    [names for count in range(len(STAGES) + 1) for names in itertools.permutations(STAGES, count)],
    ids=lambda names: "+".join(names) or "none",
)
def test_weighing_stands_between_values_and_integers_in_every_order_that_is_taken(names: tuple[str, ...]) -> None:
    tables = [{"name": name, **OPTIONS.get(name, {})} for name in names]
    integers = [made([table])[-1].place == "integer" for table in tables]
    if integers != sorted(integers):
        later = names[integers.index(True) :]
        text = refusal(tables)
        assert any(name in text for name in later)
        assert "first" in text
        return
    stages = made(tables)
    assert [isinstance(stage, Weigh) for stage in stages].count(True) == 1
    where = next(place for place, stage in enumerate(stages) if isinstance(stage, Weigh))
    assert all(stage.place == "value" for stage in stages[:where])
    assert all(stage.place == "integer" for stage in stages[where + 1 :])
    assert len(stages) == len(names) + 1
    kept = [type(stage) for stage in stages if not isinstance(stage, Weigh)]
    assert kept == [type(next(s for s in made([table]) if not isinstance(s, Weigh))) for table in tables]
    assert stages[where].cap == 10


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        (["clipp"], ["'clipp'", "clip", "fixed-point"]),
        (["fixed-point", "fixed-point"], ["fixed-point", "twice"]),
        ([{"name": "clip", "bound": 1}, {"name": "clip", "bound": 2}], ["clip", "twice"]),
        (["fixed-point", {"name": "clip", "bound": 1}], ["clip", "fixed-point", "first"]),
        ([{"name": "clip", "limit": 1}], ["limit", "clip", "bound"]),
        (["clip"], ["clip", "bound", "missing"]),
        ([{"name": "clip", "bound": 0}], ["bound", "0", "greater than 0"]),
        ([{"name": "clip", "bound": "1"}], ["bound", "'1'", "number"]),
        ([{"name": "clip", "bound": float("inf")}], ["bound", "inf"]),
        ([{"name": "fixed-point", "bits": 16}], ["bits", "16", "32 or 64"]),
        ([{"name": "fixed-point", "bits": 32}], ["32 bits", "clip"]),
        ([{"name": "fixed-point", "cap": 3}], ["cap", "bits", "fraction"]),
        ([{"name": "fixed-point", "fraction": 0}], ["fraction", "0"]),
        ([{"name": "fixed-point", "fraction": 60}], ["60 fraction bits", "5 clients"]),
        ([{"name": "clip", "bound": 1e9}, {"name": "fixed-point", "bits": 32}], ["32 bits", "1e+09", "smaller bound"]),
        ([{"name": "clip", "bound": 1}, {"name": "fixed-point", "bits": 32, "fraction": 28}], ["28", "5 clients"]),
    ],
    ids=str,
)
def test_a_refusal_is_one_line_that_names_the_stage_and_what_is_wrong(stages: list[Any], words: list[str]) -> None:
    text = refusal(stages)
    for word in words:
        assert word in text, text


def test_headroom_is_counted_for_the_clients_of_a_round() -> None:
    stages = [{"name": "clip", "bound": 1}, {"name": "fixed-point", "bits": 32, "fraction": 20}]
    made(stages, clients=100)
    text = refusal(stages, clients=2000)
    assert "2000 clients" in text
    assert "64" in text


def test_a_refusal_of_64_bits_does_not_advise_64_bits() -> None:
    assert "bits = 64" not in refusal([{"name": "fixed-point", "fraction": 60}])


def test_a_user_s_own_stage_is_taken(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "from fedmpi.aggregation import Stage\n\n\nclass Halve(Stage):\n    def __init__(self, by: float = 2.0):\n"
    (tmp_path / "own_stage.py").write_text(code + "        self.by = by\n")
    monkeypatch.syspath_prepend(tmp_path)
    stages = made([{"name": "own_stage:Halve", "by": 4.0}, "fixed-point"])
    assert [type(stage).__name__ for stage in stages] == ["Halve", "Weigh", "FixedPoint"]
    assert stages[0].by == 4.0


# A stage of one's own.


class Halves(Stage):
    """What travels as whole halves."""

    def wire(self, size: int, dtype: torch.dtype) -> tuple[int, torch.dtype]:
        return size, torch.int64

    def encode(self, wire: torch.Tensor, passage: Passage) -> torch.Tensor:
        return (wire * 2).long()


class Says(Halves):
    place = "integer"


class Unsaid(Says):
    def wire(self, size: int, dtype: torch.dtype) -> tuple[int, torch.dtype]:
        return size, dtype


class One(Says):
    """A number that the sum would spread over all values."""

    def encode(self, wire: torch.Tensor, passage: Passage) -> torch.Tensor:
        return wire[..., :1].long()


class Piecewise(Unsaid):
    elementwise = True


class Clients(Stage):
    acts_on = "clients"


class Lost(Stage):
    place = "integers"


class Noise(Stage):
    """A change to weighted values."""

    place = "weighed"


class Bounds(Stage):
    """A bound of one's own, as good as clip's."""

    bound = 2.0


class Counts(Stage):
    counters = ("seen",)


class Former(Stage):
    integers = True


def test_a_stage_of_weighted_values_stands_behind_the_weighing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STAGES, "noise", Noise)
    clip = {"name": "clip", "bound": 1}
    stages = made([clip, "noise", "fixed-point"])
    assert [type(stage).__name__ for stage in stages] == ["Clip", "Weigh", "Noise", "FixedPoint"]
    assert "clip works on values, but noise before it on weighted values; put clip first" in refusal(["noise", clip])


def test_a_bound_is_asked_of_any_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STAGES, "bounds", Bounds)
    own = made(["bounds", {"name": "fixed-point", "bits": 32}])[-1]
    assert own.fraction == made([{"name": "clip", "bound": 2}, {"name": "fixed-point", "bits": 32}])[-1].fraction


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Says, None),
        (Halves, "Halves makes 10 values of int64; it should say so with place = 'integer'"),
        (Unsaid, "made 10 values of int64 of an update, where `wire` says 10 values of float32"),
        (Piecewise, "made 10 values of int64"),
        (One, "made 1 values of int64 of an update, where `wire` says 10"),
        (Clients, "acts on 'clients'; there are client, rank, domain, home; did you mean 'client'?"),
        (Lost, "has the place 'integers'; there are value, weighed, integer; did you mean 'integer'?"),
        (Former, "own has integers; say place = 'integer' (or 'value')"),
        (Counts, "counts 0 numbers and names 1 counters"),
        (dict, "gave a dict; it should be a Stage"),
    ],
)
def test_a_stage_of_one_s_own_is_what_it_says(kind: type, words: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STAGES, "own", kind)
    layout = Layout(size=8, trained=slice(0, 8), dtype=torch.float32)

    def cross() -> None:
        stages = pipeline(Aggregation(stages=(Component(name="own"),)), 10, 1)
        path = ReducePath(Solo(), stages, layout, torch.device("cpu"))
        path.begin(passage_of(layout, 10))
        add(path, torch.ones(layout.width), passage_of(layout, 10))

    if words is None:
        cross()
        return
    with pytest.raises(JobError) as refused:
        cross()
    assert words in str(refused.value)
