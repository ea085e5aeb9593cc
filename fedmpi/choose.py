"""How a job names things: components picked by name from a room's dict; wrong words told with the nearest right one."""

from __future__ import annotations

import difflib
import importlib
import inspect
import json
import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

import pydantic
from pydantic import BaseModel, ConfigDict, Field

from fedmpi.flow import Refused
from fedmpi.own import place
from fedmpi.own import told as own


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


def nearest(name: object, names: Iterable[str]) -> str:
    """The end of a refusal that names the likeliest of `names`: `"; did you mean 'fedavg'?"`, or nothing."""
    plain = {_plain(known): known for known in names}
    words = re.split(r"[-_ ]+", str(name).lower())
    given, initials = _plain(str(name)[:60]), "".join(word[:1] for word in words)
    begun = [known for known in plain if len(given) > 1 and known.startswith(given)]
    likely = [initials] if len(words) > 1 and initials in plain else []  # learning_rate: lr
    likely = likely or difflib.get_close_matches(given, plain, n=1) or (begun if len(begun) == 1 else [])
    return f"; did you mean {plain[likely[0]]!r}?" if likely else ""


def _plain(name: str) -> str:
    """A name as people remember it: FedProx, fed_prox and fed-prox are one."""
    return re.sub(r"[^a-z0-9]+", "", name.lower())


class Room(NamedTuple):
    """Where components are: what a job calls them, the dict that a reader can see, and what the trainer fills in."""

    field: str
    place: str
    given: tuple[str, ...] = ()

    @property
    def registry(self) -> Mapping[str, Callable[..., Any]]:
        module, _, name = self.place.partition(":")
        registry: Mapping[str, Callable[..., Any]] = getattr(importlib.import_module(module), name)
        return registry


# By the words of `fedmpi list`.  Rooms are opened to tell of them alone: to choose, a caller brings its dict.
ROOMS = {
    "strategies": Room("strategy", "fedmpi.strategies:STRATEGIES", ("server",)),
    "loops": Room("loop", "fedmpi.rounds.loops:LOOPS"),
    "samplers": Room(
        "cohort.sampler",
        "fedmpi.cohort.samplers:SAMPLERS",
        ("seed", "clients", "sizes", "ids", "size", "rate", "work"),
    ),
    "stages": Room("aggregation.stages", "fedmpi.aggregation:STAGES", ("cap", "clients", "clipped")),
    "models": Room("model", "fedmpi.models:MODELS", ("shape", "outputs")),
    "tasks": Room("task", "fedmpi.evaluation:TASKS", ("scale", "dtype", "classes", "target_shape")),
    "optimizers": Room("local.optimizer", "fedmpi.optim:OPTIMIZERS"),
    "schedules": Room("local.schedule", "fedmpi.training:SCHEDULES"),
    "importers": Room("importer", "fedmpi.data:IMPORTERS", ("rng",)),
    "partitions": Room("partition", "fedmpi.data:PARTITIONS", ("y", "clients", "rng", "groups")),
}


def spelled(name: object, value: Any, within: str = "") -> str:
    """The end of a refusal that shows how a job writes the component `name`; nothing where there is no such one.

    `within`: only where a job has a field of this name for it.
    """
    ways = []
    for room in list(ROOMS.values())[:8]:  # those of a job
        if name in room.registry and within in ("", room.field):
            told = {key: inner for key, inner in value.items() if key != "name"} if isinstance(value, Mapping) else {}
            needed = options(room.registry[str(name)], room.given)
            told |= {key: ... for key, (_, default) in needed.items() if default is ... and key not in told}
            header = f"[[{room.field}]]" if room.field == "aggregation.stages" else f"[{room.field}]"
            parts = [f"{key} = {'...' if inner is ... else _toml(inner)}" for key, inner in told.items()]
            ways.append(" ".join([header, f'name = "{name}"', *parts]))
    return f"; did you mean {' or '.join(ways)}?" if ways else ""


def _toml(value: Any) -> str:
    return json.dumps(value) if isinstance(value, (str, bool, list)) else shown(value)


def explain(error: pydantic.ValidationError, frame: type[BaseModel], where: str = "") -> str:
    """A validation error in a person's words, a line per field."""
    lines = []
    for detail in error.errors():
        named = (
            len(detail["loc"]) - 1 if detail["type"] == "extra_forbidden" else -1
        )  # a field that is none, however named
        path = [
            part
            for place, part in enumerate(detail["loc"])
            if place == named or not (isinstance(part, str) and MARK.search(part))
        ]
        field = ".".join([*([where] if where else []), *(" ".join(str(part).split("\n")) for part in path)]) or "job"
        given = detail["input"]
        if detail["type"] == "extra_forbidden":
            fields = _fields(frame, [part for part in path[:-1] if isinstance(part, str)])
            lines.append(f"{field}: is not a field; there are {', '.join(fields)}{_meant(path, given, fields, frame)}")
        elif detail["type"] == "missing":
            lines.append(f"{field}: is missing{_inside(path[:-1], given)}")
        elif detail["type"] == "model_type":
            lines.append(f"{field}: {shown(given)} given; should be a table")
        elif detail["type"] == "value_error":
            lines.append(f"{field}: {shown(given)} given; {detail['ctx']['error']}")
        else:
            wanted = detail["msg"].replace("Input should be", "should be").replace("a valid ", "a ")
            wanted = wanted.replace("a integer", "an integer").replace("a tuple", "a list")
            lines.append(f"{field}: {shown(given)} given; {wanted[0].lower() + wanted[1:]}{_inside(path, given)}")
    return "\n".join(dict.fromkeys(lines))


def _meant(path: Sequence[Any], given: Any, fields: Sequence[str], frame: type[BaseModel]) -> str:
    """What may have been meant by a field that is none: a component, a name beside it, or one of another table."""
    name = str(path[-1])
    own = ""
    if isinstance(given, (Mapping, str)) and (len(path) == 1 or path[0] == "aggregation"):
        own = spelled(name, given)
    if own or len(path) > 1 or isinstance(given, Mapping):
        return own or nearest(name, fields)
    others = [f"{table}.{name}" for table in fields if name in (below := _fields(frame, [table])) and below != fields]
    return f"; did you mean {' or '.join(others)}?" if others else nearest(name, fields)


def _inside(path: Sequence[Any], given: Any) -> str:
    """A component's name where its table should be: `[aggregation.stages.clip]`, `[model.mlp]`, `stages = "clip"`."""
    within = ".".join(part for part in path if isinstance(part, str))
    if isinstance(given, str) and within == "aggregation.stages":
        return spelled(given, {}, within)
    tables = given.items() if isinstance(given, Mapping) and within else ()
    return next((told for name, table in tables if (told := spelled(name, table, within))), "")


MARK = re.compile(r"[\[(]")  # pydantic's own steps in a path, such as function-before[read(), Component]


def shown(value: Any, quotes: bool = True) -> str:
    """A value as it was written, cut where it is long."""
    if isinstance(value, int) and abs(value) >= 10**60:
        digits = int((value.bit_length() - 1) * math.log10(2)) + 1  # Python writes no more than 4,300 of them
        return f"a number of {digits} digits"
    if isinstance(value, str):
        value = value[:100]
        text = repr(value) if quotes else value
    else:
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
    except Exception:  # annotations that are there for a type checker alone
        try:
            return inspect.signature(factory).parameters
        except (TypeError, ValueError):
            return {}  # some of C's own tell nothing of themselves: they are called as they are


def choose(
    registry: Mapping[str, Callable[..., Any]],
    component: Component,
    field: str,
    /,
    *,
    of: Any = object,
    text: bool = False,
    **given: Any,
) -> Any:
    """What a component's name stands for in its room's dict, made with its options and what is `given`.

    `given` arguments that the factory does not take are dropped, so that a component asks only for what it needs.
    A name with a colon, `package.module:factory`, is the user's own.  `of` is what it should come to.  With `text`,
    options may be words of a command line.  Raises JobError for an unknown name (listing the known ones), an unknown
    option (listing the options), a wrong type or value.
    """
    factory = find(registry, component.name, field)
    allowed = options(factory, tuple(given))
    for name in component.options:
        if name not in allowed:
            known = ", ".join(allowed) or "none"
            raise JobError(
                f"{field}.{name}: is not an option of {component.name}; it has {known}"
                f"{spelled(name, component.options[name], field) or nearest(name, allowed)}"
            )
    told = {name: _tuple(allowed[name][0], value) for name, value in component.options.items()}
    try:
        frame = _frame(allowed, text)
        checked = frame.model_validate(told)
    except pydantic.ValidationError as error:
        raise JobError(explain(error, frame, field)) from None
    chosen = {name: getattr(checked, f"option_{place}") for place, name in enumerate(allowed) if name in told}
    parameters = _parameters(factory).values()
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    names = {parameter.name for parameter in parameters}
    chosen.update({name: value for name, value in given.items() if takes_all or name in names})
    try:
        made = factory(**chosen)
    except Refused:
        raise
    except (Exception, SystemExit) as error:
        said = because(error) if place(error) is None else own(error)
        raise JobError(f"{field}: {shown(component.name, quotes=False)}: {said}") from error
    if not isinstance(made, of):
        raise JobError(f"{field}: {shown(component.name)} gave a {type(made).__name__}; it should be a {of.__name__}")
    return made


def _frame(allowed: Mapping[str, tuple[Any, Any]], text: bool) -> type[BaseModel]:
    """What checks options by the types of their arguments; named by number, for pydantic keeps some names to itself."""
    config = ConfigDict(extra="forbid", arbitrary_types_allowed=True, strict=not text, allow_inf_nan=False)
    fields: dict[str, Any] = {
        f"option_{place}": (kind, Field(... if default is ... else None, alias=name))
        for place, (name, (kind, default)) in enumerate(allowed.items())
    }
    try:
        return pydantic.create_model("Options", __config__=config, **fields)
    except Exception:  # a user's annotations may be of no use to pydantic
        untyped: dict[str, Any] = {name: (Any, field) for name, (_, field) in fields.items()}
        return pydantic.create_model("Options", __config__=config, **untyped)


def because(error: BaseException) -> str:
    """An error in one line: what it says, after its kind where that says more."""
    text = " ".join(str(error).split())
    text = text if len(text) <= 300 else text[:297] + "..."
    return text if text and isinstance(error, (ValueError, TypeError)) else f"{type(error).__name__}: {text}"


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
    if name in registry:
        return registry[name]
    named = colon and attribute and len(name) <= 200 and all(part.isidentifier() for part in module.split("."))
    if not named:
        known = f"{', '.join(registry)}, or package.module:name{nearest(name, registry)}"
        raise JobError(f"{field}: {shown(name)} given; there are {known}")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        imported = importlib.import_module(module)
    except Refused:
        raise
    except (Exception, SystemExit) as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is not None and f"{module}.".startswith(f"{missing}."):
            raise JobError(f"{field}: {name!r} given; there is no module {missing!r} on the path") from None
        raise JobError(f"{field}: {name!r} cannot be imported: {own(error)}") from error
    found = getattr(imported, attribute, None)
    if found is None:
        raise JobError(f"{field}: {name!r} given; {module} has no {attribute!r}")
    if not callable(found):
        raise JobError(f"{field}: {name!r} given; it cannot be called")
    return found  # type: ignore[no-any-return]  # a user's module is Any to the checker
