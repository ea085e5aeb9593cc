"""Each combination that cannot be is refused by its own function, with the field's name, before a model is made."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from fedmpi.aggregation import Stage
from fedmpi.data import ShardSet
from fedmpi.evaluation import Regression
from fedmpi.job import Job, JobError, read
from fedmpi.plan import assemble, refusals
from fedmpi.rounds.loops import LOOPS
from fedmpi.strategies import STRATEGIES, Strategy
from tests.strategies import oracle

MODULE = nn.Linear(oracle.FEATURES, oracle.CLASSES)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return oracle.Problem().write(tmp_path_factory.mktemp("refusals") / "set")


class Keeps(Stage):
    """A stage that remembers each client."""

    memory = {"rest": "planes"}


def never(shape: tuple[int, ...], outputs: int) -> nn.Module:
    raise AssertionError("a model was made of a job that cannot be")


def asked(shards: Path, strategy: Any, own: Any = never, **sections: Any) -> Any:
    table = oracle.job(shards, strategy, **sections)
    return assemble(read(table), ShardSet.open(shards), own, try_out=False, loops=LOOPS)


CASES: dict[Callable[..., str | None], list[tuple[Any, dict[str, Any], str]]] = {
    refusals.classes_for_numbers: [("fedavg", {"task": "regression"}, r"^task: regression given, .* 3 classes, not")],
    refusals.one_model_for_many: [
        ("ifca", {"model": {"init": "file"}}, r"^strategy: ifca begins with 2 models .*; leave model\.init out"),
    ],
    refusals.other_weights: [
        ("feddyn", {"aggregation": {"weights": "examples"}}, r"^aggregation\.weights: 'examples' .* \(uniform\)"),
        ("iiadmm", {"aggregation": {"weights": "examples"}}, r"^aggregation\.weights: 'examples' given, but iiadmm"),
    ],
    refusals.bounded_whole_updates: [
        (name, {"aggregation": {"stages": [{"name": "clip", "bound": 1.0}]}}, rf"^aggregation\.stages: clip .* {name}")
        for name in ("iiadmm", "iceadmm")
    ],
    refusals.kept_in_half_a_round: [
        (name, {"aggregation": {"stages": [f"{__name__}:Keeps"]}}, rf"^aggregation\.stages: .*Keeps keeps .* {name} cr")
        for name in ("mime",)
    ],
    refusals.drawn_twice: [
        (
            "fedavg",
            {"loop": "cyclic", "cohort": {"sampler": "replacement"}},
            r"^loop: cyclic .* 'replacement' may",
        ),
        ("local", {"loop": "ensemble", "cohort": {"sampler": "examples"}}, r"^loop: ensemble .* 'examples' may draw"),
    ],
    refusals.no_metrics: [("fedavg", {"evaluation": {"metrics": []}}, r"^evaluation\.metrics: \[\] given")],
    refusals.stop_without_scores: [
        ("fedavg", {"evaluation": {"every": 0}, "stop": stop}, r"^stop: .* evaluation\.every = 0")
        for stop in ({"patience": 2}, {"accuracy": 0.9})
    ],
    refusals.stop_without_own_scores: [
        ("fedbn", {"evaluation": {"clients": False}, "stop": {"patience": 2}}, r"^stop: fedbn makes .* alone"),
    ],
}
EACH = [(refusal, *case) for refusal, cases in CASES.items() for case in cases]


def test_every_refusal_is_asked_and_tried() -> None:
    functions = {one for _, one in inspect.getmembers(refusals, inspect.isfunction)}
    here = {one for one in functions if one.__module__ == refusals.__name__}
    assert here - {refusals.refuse} == {*refusals.REFUSALS} == {*CASES}
    assert all(refusal.__doc__ for refusal in refusals.REFUSALS)


@pytest.mark.parametrize(
    ("refusal", "strategy", "sections", "words"), EACH, ids=lambda value: getattr(value, "__name__", str(value)[:40])
)
def test_it_names_the_field_before_a_model_is_made(
    shards: Path, refusal: Any, strategy: Any, sections: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(JobError, match=words) as refused:
        asked(shards, strategy, **sections)
    assert "\n" not in str(refused.value)
    monkeypatch.setattr(refusals, "REFUSALS", tuple(one for one in refusals.REFUSALS if one is not refusal))
    with pytest.raises(JobError, match="a model was made") as other:  # no other refusal says the same
        asked(shards, strategy, **sections)
    assert str(other.value) != str(refused.value)


def test_a_module_is_no_start_of_several_models(shards: Path) -> None:
    with pytest.raises(JobError, match=r"^strategy: ifca begins with 2 models .*; give a factory instead of a module"):
        asked(shards, "ifca", MODULE)


def test_a_task_of_one_s_own_may_take_classes_for_numbers(shards: Path) -> None:
    job = read(oracle.job(shards, "fedavg") | {"model": "mine"})
    plan = assemble(job, ShardSet.open(shards), nn.Linear(oracle.FEATURES, 1), Regression, False, loops=LOOPS)
    assert isinstance(plan.task, Regression)


class Silent(Strategy):
    def check(self, job: Job) -> Job:
        return None  # type: ignore[return-value]  # what a person forgot


def test_a_check_that_returns_no_job_is_refused(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STRATEGIES, "silent", Silent)
    with pytest.raises(JobError, match=r"^strategy: the check of silent returns None; it should return the job"):
        asked(shards, "silent")


# The fields that components fix.


@pytest.mark.parametrize(
    ("strategy", "sections", "fields"),
    [
        ("fedavg", {}, {"aggregation.weights": "examples", "threads": None, "local.epochs": 1}),
        ("fedavg", {"aggregation": {"stages": ["fixed-point"]}}, {"threads": 1}),
        ("fedavg", {"aggregation": {"stages": ["fixed-point"]}, "threads": 3}, {"threads": 3}),
        ("fedavg", {"cohort": {"size": 2, "sampler": "examples"}}, {"aggregation.weights": "uniform"}),
        ("feddyn", {}, {"aggregation.weights": "uniform"}),
        ("iiadmm", {}, {"aggregation.weights": "uniform"}),
        ("fedsgd", {}, {"local.batch": 0, "local.epochs": 1, "local.steps": None}),
        ("normalised-sgd", {}, {"local.batch": 0, "local.epochs": 1, "local.steps": None}),
    ],
    ids=str,
)
def test_what_a_component_fixes_stands_in_the_plan_s_job(
    shards: Path, strategy: str, sections: Mapping[str, Any], fields: Mapping[str, Any]
) -> None:
    table = {"rounds": 1, "data": {"shards": str(shards)}, "model": "mine", "strategy": strategy, **sections}
    job = assemble(read(table), ShardSet.open(shards), MODULE, try_out=False, loops=LOOPS).job
    for field, value in fields.items():
        part: Any = job
        for name in field.split("."):
            part = getattr(part, name)
        assert part == value, field
    assert job.aggregation.cap == max(oracle.SIZES)
    assert job.task is not None


def test_an_exact_plan_says_so(shards: Path) -> None:
    for stages, exact in (([], False), ([{"name": "clip", "bound": 1.0}], False), (["fixed-point"], True)):
        assert asked(shards, "fedavg", MODULE, aggregation={"stages": stages}).stages.exact is exact
