"""The meaning of a misplaced word in a job: a component, a name beside it, or a field of another table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fedmpi.job.explain import Steps, fields_of
from fedmpi.job.frames import Job
from fedmpi.job.rooms import registries
from fedmpi.job.words import nearest


def meant(path: Steps, given: Any, fields: Sequence[str]) -> str:
    """Return the end of an error's line about `given` at `path`, `"; did you mean ...?"`, or "" without a guess.

    With `fields` the path leads to none of them; without, the field exists, and its value is wrong or missing.
    """
    return _field(path, given, fields) if fields else _inside(path, given)


def _field(path: Steps, given: Any, fields: Sequence[str]) -> str:
    """Return the guess for an unknown field: a component, a name beside it, or a field of another table."""
    name = str(path[-1])
    component = ""
    if isinstance(given, (Mapping, str)) and (len(path) == 1 or path[0] == "aggregation"):
        component = _spelled(name, given)
    if component or len(path) > 1 or isinstance(given, Mapping):
        return component or nearest(name, fields)
    tables = {table: fields_of(Job, [table]) for table in fields}
    others = [f"{table}.{name}" for table, below in tables.items() if name in below and below != fields]
    return f"; did you mean {' or '.join(others)}?" if others else nearest(name, fields)


def _inside(path: Steps, given: Any) -> str:
    """Return the guess for a component's name in place of its table: `[aggregation.stages.clip]`, `[model.mlp]`."""
    within = ".".join(part for part in path if isinstance(part, str))
    if isinstance(given, Mapping) and within:
        return next((guess for name, table in given.items() if (guess := _spelled(name, table, within))), "")
    return _spelled(given, None, within) if isinstance(given, str) and within == "aggregation.stages" else ""


def _spelled(name: str, value: Any, within: str = "") -> str:
    """Return the guess of the component `name` as a job writes it; at the field `within` alone, where not ""."""
    rooms = [registry for registry in registries().values() if not registry.text and within in ("", registry.field)]
    ways = [way for registry in rooms if (way := registry.spelled(name, value))]
    return f"; did you mean {' or '.join(ways)}?" if ways else ""
