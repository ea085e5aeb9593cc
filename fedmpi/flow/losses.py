"""The loss of each example, of a task that has it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

Losses = Callable[[Tensor, Tensor], Tensor]


def losses_of(task: Any) -> Losses | None:
    """Return a task's `losses`; None without any, and where a class behind theirs has another `loss`."""
    losses: Losses | None = getattr(task, "losses", None)
    return losses if _depth(task, "losses") <= _depth(task, "loss") else None


def _depth(task: Any, name: str) -> int:
    """Return how many classes of a task come before the one with this name; none where the task itself has it."""
    kinds = [task, *type(task).__mro__]
    return next((depth for depth, kind in enumerate(kinds) if name in getattr(kind, "__dict__", {})), len(kinds))
