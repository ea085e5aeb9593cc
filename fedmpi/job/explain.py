"""The validation errors of a table in plain words, a line per field."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import pydantic
from pydantic import BaseModel

from fedmpi.job.words import nearest, shown

MARK = re.compile(r"[\[(]")  # pydantic's own steps in a path, such as function-before[read(), Component]
Steps = Sequence[str | int]  # from a table down to a field of it
Hint = Callable[[Steps, Any, Sequence[str]], str]


def likely(path: Steps, given: Any, fields: Sequence[str]) -> str:
    """Return the end of an error's line, `"; did you mean ...?"`, with the field nearest the last of `path`, or ""."""
    return nearest(path[-1], fields) if fields else ""


def explain(error: pydantic.ValidationError, frame: type[BaseModel], where: str = "", hint: Hint = likely) -> str:
    """Return a validation error in plain words, a line per wrong field of `frame`, the table of the field `where`.

    `hint` gives the end of a line from the field's path, the value given, and the fields there are: none of these
    where the field exists, and its value is wrong or missing.
    """
    lines = []
    for detail in error.errors():
        unknown = detail["type"] == "extra_forbidden"
        named = len(detail["loc"]) - 1 if unknown else -1  # the unknown field, however named
        path = [
            part
            for place, part in enumerate(detail["loc"])
            if place == named or not (isinstance(part, str) and MARK.search(part))
        ]
        field = ".".join([*([where] if where else []), *(" ".join(str(part).split("\n")) for part in path)]) or "job"
        given = detail["input"]
        if unknown:
            fields = fields_of(frame, [part for part in path[:-1] if isinstance(part, str)])
            lines.append(f"{field}: is not a field; there are {', '.join(fields)}{hint(path, given, fields)}")
        elif detail["type"] == "missing":
            lines.append(f"{field}: is missing{hint(path[:-1], given, ())}")
        elif detail["type"] == "model_type":
            lines.append(f"{field}: {shown(given)} given; should be a table")
        elif detail["type"] == "value_error":
            lines.append(f"{field}: {shown(given)} given; {detail['ctx']['error']}")
        else:
            wanted = detail["msg"].replace("Input should be", "should be").replace("a valid ", "a ")
            wanted = wanted.replace("a integer", "an integer").replace("a tuple", "a list")
            lines.append(f"{field}: {shown(given)} given; {wanted[0].lower() + wanted[1:]}{hint(path, given, ())}")
    return "\n".join(dict.fromkeys(lines))


def fields_of(frame: type[BaseModel], path: Sequence[str] = ()) -> list[str]:
    """Return the names of the fields of the frame at `path` below `frame`, or of the last frame on the way there."""
    for name in path:
        kind = frame.model_fields[name].annotation
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            break
        frame = kind
    return [name for name in frame.model_fields if name != "run"]
