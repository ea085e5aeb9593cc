"""A factory's options, read from its signature, and checked by the types of its arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import pydantic
from pydantic import BaseModel, ConfigDict, Field

from fedmpi.job.explain import explain
from fedmpi.job.words import JobError

Options = dict[str, tuple[Any, Any]]  # type and default by name; the default is ... where there is none


def options(factory: Callable[..., Any], given: Collection[str] = ()) -> Options:
    """Return the options of a factory: `{name: (type, default)}`, with `...` for one without a default.

    `given` are the arguments filled in by the caller, no options.  A type is Any where it cannot be read.
    """
    table: Options = {}
    for name, parameter in parameters(factory).items():
        if name in given or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        default = ... if parameter.default is parameter.empty else parameter.default
        known = parameter.annotation is not parameter.empty and not isinstance(parameter.annotation, str)
        kind = parameter.annotation if known else Any
        table[name] = (kind, default)
    return table


def parameters(factory: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """Return the parameters of a factory, none where it has no signature to read."""
    try:
        return inspect.signature(factory, eval_str=True).parameters
    except Exception:  # annotations for a type checker alone
        try:
            return inspect.signature(factory).parameters
        except (TypeError, ValueError):
            return {}  # some functions written in C have no signature: they are called without arguments


def taken(factory: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return those `given` arguments a factory takes: it names only the ones it needs."""
    known = parameters(factory)
    every = any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values())
    return {name: value for name, value in given.items() if every or name in known}


def checked(allowed: Options, values: Mapping[str, Any], field: str, text: bool) -> dict[str, Any]:
    """Return the `values` of options in the types `allowed`; with `text` they may be words of a command line.

    Raises JobError, which begins with `field`, for a wrong type or value and where one is missing.
    """
    if not values and all(default is not ... for _, default in allowed.values()):
        return {}  # most components of a job are given none, and a frame takes milliseconds to make
    frame = _frame(allowed, text)
    try:
        table = frame.model_validate({name: _tuple(allowed[name][0], value) for name, value in values.items()})
    except pydantic.ValidationError as error:
        raise JobError(explain(error, frame, field)) from None
    return {name: getattr(table, f"option_{place}") for place, name in enumerate(allowed) if name in values}


def _frame(allowed: Options, text: bool) -> type[BaseModel]:
    """Return the frame for a check of options; its fields are numbered, since pydantic reserves some names."""
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


def _tuple(kind: Any, value: Any) -> Any:
    """Return a value with tuples in place of lists where the option's type has tuples: TOML has lists alone."""
    if not isinstance(value, list):
        return value
    kinds = [kind, *get_args(kind)] if get_origin(kind) in (Union, UnionType, Annotated) else [kind]
    inner = next((get_args(one) for one in kinds if get_origin(one) is tuple), None)
    return value if inner is None else tuple(_tuple(inner[0], part) for part in value)
