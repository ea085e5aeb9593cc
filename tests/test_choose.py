"""A component is picked by its name and told its options: what is wrong with either is said in a job's words."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from fedmpi import job
from fedmpi.aggregation import STAGES
from fedmpi.cohort.samplers import SAMPLERS
from fedmpi.data import PARTITIONS
from fedmpi.evaluation import TASKS
from fedmpi.flow import Refused
from fedmpi.job import Component, JobError, choose, find, nearest, options
from fedmpi.models import MODELS
from fedmpi.optim import OPTIMIZERS
from fedmpi.rounds.loops import LOOPS
from fedmpi.strategies import STRATEGIES
from fedmpi.training import SCHEDULES
from tests.test_job import INTERNALS, lawful

REGISTRIES: dict[str, Mapping[str, Callable[..., Any]]] = {
    "aggregation.stages": STAGES,
    "local.optimizer": OPTIMIZERS,
    "local.schedule": SCHEDULES,
    "model": MODELS,
    "partition": PARTITIONS,
    "strategy": STRATEGIES,
    "cohort.sampler": SAMPLERS,
    "loop": LOOPS,
    "task": TASKS,
}
ENTRIES = [(field, name) for field, registry in REGISTRIES.items() for name in registry]


# Components.


@pytest.mark.parametrize(("field", "name"), ENTRIES)
def test_an_unknown_option_of_any_component_names_its_options(field: str, name: str) -> None:
    registry = REGISTRIES[field]
    with pytest.raises(JobError) as refused:
        choose(registry, Component(name=name, warmth=1), field)
    said = str(refused.value)
    assert said.startswith(f"{field}.warmth: is not an option of {name}; it has ")
    for option in options(registry[name]):
        assert option in said


@pytest.mark.parametrize("field", REGISTRIES)
@pytest.mark.parametrize("name", ["nonsense", "", "MLP "])
def test_an_unknown_name_names_those_there_are(field: str, name: str) -> None:
    with pytest.raises(JobError) as refused:
        choose(REGISTRIES[field], Component(name=name), field)
    said = str(refused.value)
    assert said.startswith(f"{field}: {name!r} given; there are ")
    for known in REGISTRIES[field]:
        assert known in said


@pytest.mark.parametrize(("field", "name"), ENTRIES)
def test_every_component_says_what_it_is(field: str, name: str) -> None:
    """A docstring, or a name that torch documents; and options whose types a job can write."""
    factory = REGISTRIES[field][name]
    assert factory.__doc__ or field in ("local.optimizer", "local.schedule")
    for kind, _ in options(factory).values():
        assert kind is not None


def made(
    size: int, rate: float = 0.5, mode: Literal["a", "b"] = "a", on: bool = False,
    pair: tuple[float, float] = (0.0, 1.0), names: list[str] | None = None, bound: Annotated[float, Field(gt=0)] = 1.0,
) -> dict[str, Any]:  # fmt: skip
    """A component with an option of every kind."""
    if size > 100:
        raise ValueError("size should be at most 100")
    return {"size": size, "rate": rate, "mode": mode, "on": on, "pair": pair, "names": names, "bound": bound}


KNOWN = {"made": made}


@pytest.mark.parametrize(
    ("given", "got"),
    [
        ({"size": 3}, {"rate": 0.5}),
        ({"size": 3, "rate": 2}, {"rate": 2.0}),
        ({"size": 3, "pair": [1, 2.5]}, {"pair": (1.0, 2.5)}),
        ({"size": 3, "names": ["x"]}, {"names": ["x"]}),
        ({"size": 3, "on": True, "mode": "b", "bound": 0.1}, {"on": True, "mode": "b", "bound": 0.1}),
    ],
)
def test_options_arrive_as_the_types_they_are_declared_with(given: dict[str, Any], got: dict[str, Any]) -> None:
    result = choose(KNOWN, Component(name="made", **given), "thing")
    for name, value in got.items():
        assert result[name] == value
        assert type(result[name]) is type(value)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, ["thing", "size", "is missing"]),
        ({"size": "3"}, ["thing.size", "'3'", "should be an integer"]),
        ({"size": 2.5}, ["thing.size", "2.5", "should be an integer"]),
        ({"size": True}, ["thing.size", "True", "should be an integer"]),
        ({"size": 3, "rate": "0.1"}, ["thing.rate", "'0.1'", "should be a number"]),
        ({"size": 3, "rate": True}, ["thing.rate", "True", "should be a number"]),
        ({"size": 3, "rate": math.nan}, ["thing.rate", "nan"]),
        ({"size": 3, "rate": []}, ["thing.rate", "[]", "should be a number"]),
        ({"size": 3, "mode": "c"}, ["thing.mode", "'c'", "'a' or 'b'"]),
        ({"size": 3, "on": "yes"}, ["thing.on", "'yes'", "should be a boolean"]),
        ({"size": 3, "pair": 1.0}, ["thing.pair", "1.0", "list"]),
        ({"size": 3, "pair": [1.0]}, ["thing.pair"]),
        ({"size": 3, "names": "x"}, ["thing.names", "'x'", "list"]),
        ({"size": 3, "bound": 0}, ["thing.bound", "0", "greater than 0"]),
        ({"size": 101}, ["thing", "made", "size should be at most 100"]),
        ({"size": 3, "sice": 4}, ["thing.sice", "is not an option of made", "size, rate, mode"]),
    ],
    ids=str,
)
def test_a_wrong_option_is_refused_by_field(given: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(JobError) as refused:
        choose(KNOWN, Component(name="made", **given), "thing")
    said = str(refused.value)
    assert "\n" not in said
    for word in (*INTERNALS, "fractional part"):
        assert word not in said, said
    for word in words:
        assert word in said, said


def test_what_the_caller_fills_in_is_no_option() -> None:
    def wants(cap: int, bound: float = 1.0) -> tuple[int, float]:
        return cap, bound

    registry = {"wants": wants}
    assert choose(registry, Component(name="wants", bound=2.0), "thing", cap=5, clients=9) == (5, 2.0)
    with pytest.raises(JobError, match=r"thing\.cap: is not an option of wants; it has bound"):
        choose(registry, Component(name="wants", cap=3), "thing", cap=5)


def test_a_refusal_by_the_component_is_its_own() -> None:
    def refuses() -> None:
        raise Refused("there is no such disk")

    with pytest.raises(Refused, match="^there is no such disk$"):
        choose({"refuses": refuses}, Component(name="refuses"), "thing")


# The user's own.


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module of the user's, on the path."""
    (tmp_path / "own_parts.py").write_text(
        "number = 3\n"
        "def factory(width: int = 2):\n    return ['made', width]\n"
        "def loose(width=2, **rest):\n    return [width, rest]\n"
        "def broken():\n    raise ValueError('of their own')\n"
    )
    (tmp_path / "own_typed.py").write_text(
        "from __future__ import annotations\nfrom typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from torch import Tensor\n"
        "def factory(shape: tuple[int, ...], start: Tensor | None = None, width: int = 2):\n    return [shape, width]\n"
    )
    (tmp_path / "own_needs.py").write_text("import a_module_that_is_not_there\n")
    (tmp_path / "own_wrong.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_a_user_s_factory_is_made_with_its_options(own: Path) -> None:
    assert choose({}, Component(name="own_parts:factory", width=5), "model") == ["made", 5]
    assert choose({}, Component(name="own_parts:factory"), "model", shape=(3,)) == ["made", 2]
    assert choose({}, Component(name="own_parts:loose"), "model", shape=(3,)) == [2, {"shape": (3,)}]


def test_a_user_s_annotations_may_be_for_the_checker_alone(own: Path) -> None:
    assert choose({}, Component(name="own_typed:factory", width=5), "model", shape=(3,)) == [(3,), 5]


def test_a_user_s_module_may_lie_in_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_here.py").write_text("def factory():\n    return 'here'\n")
    monkeypatch.chdir(tmp_path)
    assert choose({}, Component(name="own_here:factory"), "model") == "here"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no_such:factory", ["no module 'no_such'"]),
        ("own_parts.deeper:factory", ["own_parts.deeper"]),
        ("own_parts:missing", ["own_parts has no 'missing'"]),
        ("own_parts:number", ["cannot be called"]),
        ("own_parts:", ["package.module:name"]),
        (":factory", ["package.module:name"]),
        ("..own_parts:factory", ["package.module:name"]),
    ],
)
def test_a_name_that_leads_nowhere_is_refused(own: Path, name: str, words: list[str]) -> None:
    with pytest.raises(JobError) as refused:
        find({"mlp": made}, name, "model")
    said = str(refused.value)
    assert said.startswith(f"model: {name!r} given")
    if "package.module:name" not in words:
        for word in words:
            assert word in said, said


def test_a_user_s_option_is_checked_like_any(own: Path) -> None:
    with pytest.raises(JobError, match=r"model\.wide: is not an option of own_parts:factory; it has width"):
        choose({}, Component(name="own_parts:factory", wide=5), "model")
    with pytest.raises(JobError, match=r"model\.width: 'x' given; should be an integer"):
        choose({}, Component(name="own_parts:factory", width="x"), "model")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("own_needs:factory", r"ModuleNotFoundError: .*a_module_that_is_not_there.* \(.*own_needs\.py:1\)"),
        ("own_wrong:factory", r"ZeroDivisionError: division by zero \(.*own_wrong\.py:1\)"),
        ("own_parts:broken", r"ValueError: of their own \(.*own_parts\.py:7\)"),
        ("own_torn:factory", r"SyntaxError: .* \(.*own_torn\.py:1\)"),
    ],
)
def test_an_error_in_the_user_s_code_is_one_line_with_theirs(own: Path, name: str, words: str) -> None:
    (own / "own_torn.py").write_text("def factory(:\n")
    with pytest.raises(JobError, match=rf"^model: '?{name}.*{words}$") as refused:
        choose({}, Component(name=name), "model")
    assert refused.value.__cause__ is not None
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["builtins:dict", "math:hypot"])
def test_what_has_no_signature_is_called_or_refused_but_no_traceback_of_ours(name: str) -> None:
    with contextlib.suppress(JobError):
        choose({}, Component(name=name), "model")


# The nearest right word.

WORDS = sorted(
    {name for registry in REGISTRIES.values() for name in registry} | {*job.Local.model_fields, *job.Job.model_fields}
)
letters = st.sampled_from("abcdefghijklmnopqrstuvwxyz")


@lawful
@given(name=st.sampled_from([known for known in WORDS if len(known) > 3]), place=st.integers(0, 30), letter=letters)
def test_a_name_with_a_letter_more_less_or_other_is_told_the_right_one(name: str, place: int, letter: str) -> None:
    at = place % len(name)
    for typo in (name[:at] + letter + name[at:], name[:at] + name[at + 1 :], name[:at] + letter + name[at + 1 :]):
        told = nearest(typo, WORDS)
        assert told.startswith("; did you mean '")
        right = told.split("'")[1]
        assert right == name or (right in WORDS and abs(len(right) - len(typo)) <= 2)  # iiadmm and iceadmm are near


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("FedAvg", "fedavg"), ("fed_avg", "fedavg"), ("round robin", "round-robin"), ("learning_rate", "lr"),
        ("batch_size", "batch"), ("eval", "evaluation"), ("sdg", "sgd"), ("scafold", "scaffold"),
    ],
)  # fmt: skip
def test_a_name_as_people_write_it_is_told_the_right_one(name: str, right: str) -> None:
    assert nearest(name, WORDS) == f"; did you mean {right!r}?"


@pytest.mark.parametrize("name", ["", "zzz", "0", "q", "\0", "x" * 10**6, 3, [0]])
def test_what_is_like_nothing_gets_no_advice(name: Any) -> None:
    assert nearest(name, WORDS) == ""
    assert nearest(name, []) == ""
