"""A job read from its TOML file or a dict of the same shape, its frame checked."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pydantic

from fedmpi.flow import Where
from fedmpi.job.explain import explain
from fedmpi.job.frames import Job
from fedmpi.job.meant import meant
from fedmpi.job.overrides import override
from fedmpi.job.regular import regular
from fedmpi.job.sane import LONG, sane
from fedmpi.job.words import JobError, because, shown


def read(source: Where | Mapping[str, Any], overrides: Sequence[str] = ()) -> Job:
    """Return the job of a TOML file or a dict, with overrides as those of `--set` (`"local.lr=0.1"`) laid over it.

    Raises JobError with one line per wrong field.
    """
    if not isinstance(source, (str, os.PathLike, Mapping)):
        raise JobError(f"job: {shown(source)} given; should be a TOML file's path, or a dict of the same shape")
    table = dict(source) if isinstance(source, Mapping) else _load(Path(source))
    for text in overrides:
        override(table, text)
    return validate(table)


def validate(table: Mapping[str, Any]) -> Job:
    """Return the job of a table; JobError has a line for each wrong field, with the value given and those allowed."""
    sane(table)
    try:
        return Job.model_validate(table)
    except pydantic.ValidationError as error:
        raise JobError(explain(error, Job, hint=meant)) from None


def _load(path: Path) -> dict[str, Any]:
    """Return the table in a TOML file; JobError where there is no such file, or it cannot be read."""
    name = shown(str(path)) if len(str(path)) > LONG or "\0" in str(path) else str(path)
    try:
        regular(path, 2**16)  # TOML's reader takes minutes for a longer line of names
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise JobError(f"{path}: there is no such job file") from None
    except (OSError, ValueError) as error:  # a NUL in its name is a ValueError, like a wrong byte in its text
        reason = error.strerror if isinstance(error, OSError) else error
        raise JobError(f"{name}: cannot be read as a job file: {reason}") from None
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise JobError(f"{path}: is not TOML that can be read: its lists lie too deep in each other") from None
    except ValueError as error:  # TOMLDecodeError, or a whole number of thousands of digits
        raise JobError(f"{path}: is not TOML: {because(error)}") from None
