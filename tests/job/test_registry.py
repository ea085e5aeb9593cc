"""A component is picked by its name and told its options: what is wrong with either is said in a job's words."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from fedmpi.flow import Refused
from fedmpi.job import Component, JobError, Registry, registries
from tests.job.refusals import INTERNALS

REGISTRIES = {registry.field: registry for registry in registries().values()}
ENTRIES = [(field, name) for field, registry in REGISTRIES.items() for name in registry]


# Components.


@pytest.mark.parametrize(("field", "name"), ENTRIES)
def test_an_unknown_option_of_any_component_names_its_options(field: str, name: str) -> None:
    registry = REGISTRIES[field]
    with pytest.raises(JobError) as refused:
        registry.choose(Component(name=name, warmth=1))
    said = str(refused.value)
    assert said.startswith(f"{field}.warmth: is not an option of {name}; it has ")
    for option in registry.options(name):
        assert option in said


@pytest.mark.parametrize("field", REGISTRIES)
@pytest.mark.parametrize("name", ["nonsense", "", "MLP "])
def test_an_unknown_name_names_those_there_are(field: str, name: str) -> None:
    with pytest.raises(JobError) as refused:
        REGISTRIES[field].choose(Component(name=name))
    said = str(refused.value)
    assert said.startswith(f"{field}: {name!r} given; there are ")
    for known in REGISTRIES[field]:
        assert known in said


@pytest.mark.parametrize(("field", "name"), ENTRIES)
def test_every_component_says_what_it_is(field: str, name: str) -> None:
    """A docstring, or a name that torch documents; and options whose types a job can write."""
    factory = REGISTRIES[field][name]
    assert factory.__doc__ or field in ("local.optimizer", "local.schedule")
    for kind, _ in REGISTRIES[field].options(name).values():
        assert kind is not None


def made(
    size: int, rate: float = 0.5, mode: Literal["a", "b"] = "a", on: bool = False,
    pair: tuple[float, float] = (0.0, 1.0), names: list[str] | None = None, bound: Annotated[float, Field(gt=0)] = 1.0,
) -> dict[str, Any]:  # fmt: skip
    """A component with an option of every kind."""
    if size > 100:
        raise ValueError("size should be at most 100")
    return {"size": size, "rate": rate, "mode": mode, "on": on, "pair": pair, "names": names, "bound": bound}


KNOWN = Registry("thing", {"made": made})


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
    result = KNOWN.choose(Component(name="made", **given))
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
        KNOWN.choose(Component(name="made", **given))
    said = str(refused.value)
    assert "\n" not in said
    for word in (*INTERNALS, "fractional part"):
        assert word not in said, said
    for word in words:
        assert word in said, said


def test_what_the_caller_fills_in_is_no_option() -> None:
    def wants(cap: int, bound: float = 1.0) -> tuple[int, float]:
        return cap, bound

    registry = Registry("thing", {"wants": wants}, given=("cap", "clients"))
    assert registry.choose(Component(name="wants", bound=2.0), cap=5, clients=9) == (5, 2.0)
    with pytest.raises(JobError, match=r"thing\.cap: is not an option of wants; it has bound"):
        registry.choose(Component(name="wants", cap=3), cap=5)


def test_a_registry_fills_in_no_argument_that_it_did_not_name() -> None:
    with pytest.raises(AssertionError):
        KNOWN.choose(Component(name="made", size=3), cap=5)


def test_a_registry_says_what_its_factories_make() -> None:
    registry: Registry[Any] = Registry("thing", {"made": made}, of=list)
    with pytest.raises(JobError, match=r"^thing: 'made' gave a dict; it should be a list$"):
        registry.choose(Component(name="made", size=3))
    with pytest.raises(JobError, match=r"^other: 'made' gave a dict"):
        registry.choose(Component(name="made", size=3), "other")


def test_a_refusal_by_the_component_is_its_own() -> None:
    def refuses() -> object:
        raise Refused("there is no such disk")

    with pytest.raises(Refused, match="^there is no such disk$"):
        Registry("thing", {"refuses": refuses}).choose(Component(name="refuses"))


# The user's own.

MODEL = Registry("model", {"mlp": made}, given=("shape",))


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
    assert MODEL.choose(Component(name="own_parts:factory", width=5)) == ["made", 5]
    assert MODEL.choose(Component(name="own_parts:factory"), shape=(3,)) == ["made", 2]
    assert MODEL.choose(Component(name="own_parts:loose"), shape=(3,)) == [2, {"shape": (3,)}]


def test_a_user_s_annotations_may_be_for_the_checker_alone(own: Path) -> None:
    assert MODEL.choose(Component(name="own_typed:factory", width=5), shape=(3,)) == [(3,), 5]


def test_a_user_s_module_may_lie_in_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_here.py").write_text("def factory():\n    return 'here'\n")
    monkeypatch.chdir(tmp_path)
    assert MODEL.choose(Component(name="own_here:factory")) == "here"


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
        MODEL.find(name)
    said = str(refused.value)
    assert said.startswith(f"model: {name!r} given")
    if "package.module:name" not in words:
        for word in words:
            assert word in said, said


def test_a_user_s_option_is_checked_like_any(own: Path) -> None:
    with pytest.raises(JobError, match=r"model\.wide: is not an option of own_parts:factory; it has width"):
        MODEL.choose(Component(name="own_parts:factory", wide=5))
    with pytest.raises(JobError, match=r"model\.width: 'x' given; should be an integer"):
        MODEL.choose(Component(name="own_parts:factory", width="x"))


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
        MODEL.choose(Component(name=name))
    assert refused.value.__cause__ is not None
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["builtins:dict", "math:hypot"])
def test_what_has_no_signature_is_called_or_refused_but_no_traceback_of_ours(name: str) -> None:
    with contextlib.suppress(JobError):
        MODEL.choose(Component(name=name))
