"""The facts of examples for a task and a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Facts:
    """The facts of examples for a task and a model, and in a trained model's file.

    `shape` and `target_shape` are of one example as stored; a model sees `scale` times x.  `classes` are the names of
    the targets' values, `features` those of the columns of x: both empty where there are none.
    """

    shape: tuple[int, ...]
    target_shape: tuple[int, ...]
    classes: tuple[str, ...]
    features: tuple[str, ...]
    scale: float

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> Facts:
        """Return the facts in the metadata of a model's file; KeyError or TypeError where it does not hold them."""
        shape, target_shape, classes = (tuple(table[name]) for name in ("shape", "target_shape", "classes"))
        return cls(shape, target_shape, classes, tuple(table.get("features", ())), table["scale"])

    def table(self) -> dict[str, Any]:
        """Return the facts for the metadata of a model's file."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
