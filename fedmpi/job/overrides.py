"""`--set FIELD=VALUE` laid over a job's table."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from typing import Any

from fedmpi.job.sane import DEEP
from fedmpi.job.words import JobError, because, shown


def override(table: dict[str, Any], text: str) -> None:
    """Lay one override, such as `"local.lr=0.1"`, over a table, in place; JobError where it is malformed."""
    field, equals, value = text.partition("=")
    keys = field.strip().split(".")
    if not equals or not all(keys) or keys[0] == "run" or len(keys) > DEEP:
        raise JobError(f"--set {shown(text)}: write FIELD=VALUE, as in --set local.lr=0.1")
    for index, key in enumerate(keys[:-1]):
        below = table.get(key, {})
        if isinstance(below, str):  # `strategy = "fedavg"` and `--set strategy.mu=1`
            below = {"name": below}
        if not isinstance(below, Mapping):
            raise JobError(f"--set {shown(text)}: {'.'.join(keys[: index + 1])} is {shown(below)}, not a table")
        table[key] = dict(below)
        table = table[key]
    table[keys[-1]] = _value(value.strip(), f"--set {shown(text)}")


def _value(text: str, where: str) -> Any:
    """Return the value of an override as TOML reads it, a bare word as a string; JobError for an unreadable one."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text  # a bare word is a string, so that a shell needs no second pair of quotes
    except (ValueError, RecursionError) as error:
        raise JobError(f"{where}: {because(error)}") from None
    return parsed["value"] if len(parsed) == 1 else text
