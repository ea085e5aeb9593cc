"""The job file: its frame is validated here, each component's own table by the component it names."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pydantic
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt

from fedmpi.flow import Refused, Where


class JobError(Refused):
    """A field of a job that cannot be: names the field, what was given and what is allowed."""

    code = 2


class Frame(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Component(BaseModel):
    """Something picked by name, with options that only it can check: `"clip"` or `{name = "clip", bound = 1.0}`."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)
    name: str

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


def _named(default: str | None = None) -> BeforeValidator:
    """Read a bare name as a table; a table of options alone is about the default component."""

    def read(value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        return {"name": default, **value} if default is not None and isinstance(value, dict) else value

    return BeforeValidator(read)


def _listed(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


Named = Annotated[Component, _named()]
Optimizer = Annotated[Component, _named("sgd")]
Names = Annotated[tuple[str, ...], BeforeValidator(_listed)]
Pipeline = Annotated[tuple[Named, ...], BeforeValidator(_listed)]
Fraction = Annotated[float, Field(gt=0, le=1)]


class Data(Frame):
    shards: str


class Cohort(Frame):
    """Clients a round: a number, or a fraction of all; all of them where neither is given.  `sampler`: who they are."""

    size: PositiveInt | None = None
    fraction: Fraction | None = None
    sampler: Annotated[Component, _named("uniform")] = Component(name="uniform")

    def of(self, clients: int) -> int:
        """How many of `clients` take part in a round."""
        if self.fraction is not None:
            return max(1, round(self.fraction * clients))
        return clients if self.size is None else self.size


class Local(Frame):
    """How a client learns: passes over its examples (`epochs`) or a number of steps; `batch` 0 takes all at once."""

    optimizer: Optimizer = Component(name="sgd")
    lr: PositiveFloat = 0.1
    batch: Annotated[int, Field(ge=0)] = 10
    epochs: PositiveInt | None = None
    steps: PositiveInt | None = None
    l1: NonNegativeFloat = 0.0
    l2: NonNegativeFloat = 0.0
    clip: PositiveFloat | None = None  # L2 norm of a step's gradient
    schedule: Annotated[Component, _named("constant")] = Component(name="constant")  # of the learning rate, over rounds


class Aggregation(Frame):
    weights: Literal["examples", "uniform"] = "examples"
    cap: PositiveInt | None = None  # w = min(examples / cap, 1); the largest client where not given
    stages: Pipeline = ()


class Server(Frame):
    optimizer: Optimizer = Component(name="sgd")
    lr: PositiveFloat = 1.0
    schedule: Annotated[Component, _named("constant")] = Component(name="constant")  # of the learning rate, over rounds
    trains: bool = False


class Evaluation(Frame):
    """`every` rounds, and the final model always; 0 scores the final model alone.  No `metrics`: the task's own."""

    every: Annotated[int, Field(ge=0)] = 1
    metrics: Names | None = None
    batch: PositiveInt = 1024
    clients: bool = True  # clients score the received model on their held-out examples


class Stop(BaseModel):
    """When to end before `rounds`: a target by its metric's name, `patience` in evaluations, wall `seconds`."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True, allow_inf_nan=False)
    patience: PositiveInt | None = None
    metric: str | None = None  # what patience and the best checkpoint look at; the first metric where not given
    seconds: PositiveFloat | None = None

    @property
    def targets(self) -> dict[str, float]:
        return dict(self.model_extra or {})


class Checkpoints(Frame):
    """Every how many rounds (0: only at a stop), and how many are kept besides the best."""

    every: Annotated[int, Field(ge=0)] = 1
    keep: PositiveInt = 2


class Job(Frame):
    """Everything a run needs."""

    name: Annotated[str, Field(min_length=1)] = "run"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    rounds: PositiveInt
    loop: Annotated[Component, _named("synchronous")] = Component(name="synchronous")  # what a round is
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: PositiveInt | None = None  # compute threads of a rank; its share of the node's cores where not given
    data: Data
    cohort: Cohort = Cohort()
    model: Named
    task: Named | None = None  # what the shard set says where not given
    local: Local = Local()
    strategy: Annotated[Component, _named("fedavg")] = Component(name="fedavg")
    aggregation: Aggregation = Aggregation()
    server: Server = Server()
    evaluation: Evaluation = Evaluation()
    stop: Stop = Stop()
    checkpoint: Checkpoints = Checkpoints()
    run: dict[str, Any] = {}  # where a run ran: in the copy that its folder keeps, and no part of what it is

    @pydantic.model_validator(mode="after")
    def _agrees(self) -> Job:
        if self.cohort.size is not None and self.cohort.fraction is not None:
            raise JobError("cohort: give size (clients) or fraction (of all clients), not both")
        if self.local.epochs is not None and self.local.steps is not None:
            raise JobError("local: give epochs (passes over a client's examples) or steps, not both")
        return self


def read(source: Where | Mapping[str, Any], overrides: Sequence[str] = ()) -> Job:
    """The job in a TOML file or a dict of the same shape, with `--set` overrides (`"local.lr=0.1"`) laid over it.

    Raises JobError with one line per wrong field.
    """
    table = dict(source) if isinstance(source, Mapping) else _load(Path(source))
    for text in overrides:
        _override(table, text)
    return validate(table)


def validate(table: Mapping[str, Any]) -> Job:
    """The job of a table, its frame checked; JobError names each wrong field, what was given and what is allowed."""
    try:
        return Job.model_validate(table)
    except pydantic.ValidationError as error:
        raise JobError(explain(error, Job)) from None


def _load(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise JobError(f"{path}: there is no such job file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise JobError(f"{path}: cannot be read as a job file: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise JobError(f"{path}: is not TOML: {error}") from None


def _override(table: dict[str, Any], text: str) -> None:
    field, equals, value = text.partition("=")
    keys = field.strip().split(".")
    if not equals or not all(keys) or keys[0] == "run":
        raise JobError(f"--set {text!r}: write FIELD=VALUE, as in --set local.lr=0.1")
    try:
        parsed = tomllib.loads(f"value = {value.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value.strip()  # a bare word is a string, so that a shell needs no second pair of quotes
    for index, key in enumerate(keys[:-1]):
        below = table.get(key, {})
        if isinstance(below, str):  # `strategy = "fedavg"` and `--set strategy.mu=1`
            below = {"name": below}
        if not isinstance(below, Mapping):
            raise JobError(f"--set {text!r}: {'.'.join(keys[: index + 1])} is {below!r}, not a table")
        table[key] = dict(below)
        table = table[key]
    table[keys[-1]] = parsed


def explain(error: pydantic.ValidationError, frame: type[BaseModel], where: str = "") -> str:
    """A validation error in a person's words, a line per field."""
    lines = []
    for detail in error.errors():
        path = [part for part in detail["loc"] if not (isinstance(part, str) and MARK.search(part))]
        field = ".".join([*([where] if where else []), *(str(part) for part in path)]) or "job"
        given = detail["input"]
        if detail["type"] == "extra_forbidden":
            fields = ", ".join(_fields(frame, [part for part in path[:-1] if isinstance(part, str)]))
            lines.append(f"{field}: is not a field; there are {fields}")
        elif detail["type"] == "missing":
            lines.append(f"{field}: is missing")
        elif detail["type"] == "model_type":
            lines.append(f"{field}: {_shown(given)} given; should be a table")
        else:
            wanted = detail["msg"].replace("Input should be", "should be").replace("a valid ", "a ")
            wanted = wanted.replace("a integer", "an integer").replace("a tuple", "a list")
            lines.append(f"{field}: {_shown(given)} given; {wanted[0].lower() + wanted[1:]}")
    return "\n".join(dict.fromkeys(lines))


MARK = re.compile(r"[\[(]")  # pydantic's own steps in a path, such as function-before[read(), Component]


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _fields(frame: type[BaseModel], path: Sequence[str]) -> list[str]:
    for name in path:
        kind = frame.model_fields[name].annotation
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            break
        frame = kind
    return [name for name in frame.model_fields if name != "run"]


def options(factory: Callable[..., Any], given: Sequence[str] = ()) -> dict[str, tuple[Any, Any]]:
    """What a component can be told: `{name: (type, default)}`, `...` where it must be given.

    `given` are the arguments that the caller fills in.  Arguments whose default is None and whose type cannot be
    written in a job, and torch's switches between equal implementations, are left out.
    """
    found: dict[str, tuple[Any, Any]] = {}
    for name, parameter in _parameters(factory).items():
        if name in given or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        default = ... if parameter.default is parameter.empty else parameter.default
        known = parameter.annotation is not parameter.empty and not isinstance(parameter.annotation, str)
        kind = parameter.annotation if known else Any
        found[name] = (kind, default)
    return found


def _parameters(factory: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(factory, eval_str=True).parameters
    except NameError:
        return inspect.signature(factory).parameters  # annotations that are there for a type checker alone
    except (TypeError, ValueError):
        return {}  # some of C's own tell nothing of themselves: they are called as they are


def choose(
    registry: Mapping[str, Callable[..., Any]], component: Component, field: str, /, *, text: bool = False, **given: Any
) -> Any:
    """What a component's name stands for in its room's dict, made with its options and what is `given`.

    `given` arguments that the factory does not take are dropped, so that a component asks only for what it needs.
    A name with a colon, `package.module:factory`, is the user's own.  With `text`, options may be words of a command
    line.  Raises JobError for an unknown name (listing the
    known ones), an unknown option (listing the options), a wrong type or value.
    """
    factory = find(registry, component.name, field)
    allowed = options(factory, tuple(given))
    for name in component.options:
        if name not in allowed:
            known = ", ".join(allowed) or "none"
            raise JobError(f"{field}.{name}: is not an option of {component.name}; it has {known}")
    config = ConfigDict(extra="forbid", arbitrary_types_allowed=True, strict=not text, allow_inf_nan=False)
    # The stub wants the fields' names written out; they are the component's own.
    frame = pydantic.create_model(component.name, __config__=config, **allowed)  # type: ignore[call-overload]
    told = {name: _tuple(allowed[name][0], value) for name, value in component.options.items()}
    try:
        checked = frame.model_validate(told)
    except pydantic.ValidationError as error:
        raise JobError(explain(error, frame, field)) from None
    chosen = {name: getattr(checked, name) for name in component.options}
    parameters = _parameters(factory).values()
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    names = {parameter.name for parameter in parameters}
    chosen.update({name: value for name, value in given.items() if takes_all or name in names})
    try:
        return factory(**chosen)
    except Refused:
        raise
    except (ValueError, TypeError) as error:
        if ":" in component.name:
            raise  # the user's own code: they want its traceback
        raise JobError(f"{field}: {component.name}: {error}") from None


def _tuple(kind: Any, value: Any) -> Any:
    """TOML has lists where components take tuples."""
    if not isinstance(value, list):
        return value
    kinds = [kind, *get_args(kind)] if get_origin(kind) in (Union, UnionType, Annotated) else [kind]
    inner = next((get_args(one) for one in kinds if get_origin(one) is tuple), None)
    return value if inner is None else tuple(_tuple(inner[0], part) for part in value)


def find(registry: Mapping[str, Callable[..., Any]], name: str, field: str) -> Callable[..., Any]:
    """The factory that a name stands for; `package.module:factory` is imported (the working folder is on the path)."""
    module, colon, attribute = name.partition(":")
    if not colon and name in registry:
        return registry[name]
    if not colon or not attribute or not all(part.isidentifier() for part in module.split(".")):
        raise JobError(f"{field}: {name!r} given; there are {', '.join(registry)}, or package.module:name")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        if error.name is None or not (module + ".").startswith(error.name + "."):
            raise  # something that the user's module imports
        raise JobError(f"{field}: {name!r} given; there is no module {error.name!r} on the path") from None
    except AttributeError:
        raise JobError(f"{field}: {name!r} given; {module} has no {attribute!r}") from None
    if not callable(found):
        raise JobError(f"{field}: {name!r} given; it cannot be called")
    return found  # type: ignore[no-any-return]  # a user's module is Any to the checker
