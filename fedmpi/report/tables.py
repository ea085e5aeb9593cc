"""Values looked up in tables of tables of any shape, such as the lines of a journal."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def value_at(table: Any, *path: str) -> Any:
    """Return the value under `path` in tables of tables; `...` where there is none."""
    for name in path:
        if not isinstance(table, Mapping) or name not in table:
            return ...
        table = table[name]
    return table


def number_at(table: Any, *path: str) -> float:
    """Return the finite number under `path`, else NaN."""
    value = value_at(table, *path)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    return float(value) if abs(value) < 1e300 else math.nan


def table_at(table: Any, *path: str) -> dict[str, Any]:
    """Return the table under `path`, an empty one where there is none."""
    value = value_at(table, *path)
    return value if isinstance(value, dict) else {}


def holds_number(value: Any) -> bool:
    """Return whether a value is a finite number, or a table with one at any depth."""
    if isinstance(value, Mapping):
        return any(map(holds_number, value.values()))
    return math.isfinite(number_at(value))


def flat(table: Mapping[str, Any], where: str = "") -> dict[str, str]:
    """Return the fields of a table and of those below it as text, by dotted name."""
    fields: dict[str, str] = {}
    for name, value in table.items():
        if isinstance(value, Mapping):
            fields.update(flat(value, f"{where}{name}."))
        else:
            fields[where + name] = value if isinstance(value, str) else json.dumps(value, default=str)
    return fields
