"""A user's own component, imported by its name: `package.module:factory`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any

from fedmpi import own
from fedmpi.flow import Refused
from fedmpi.job.words import JobError


def is_own(name: str) -> bool:
    """Return whether a name is written like a user's own component, `package.module:factory`."""
    module, _, attribute = name.partition(":")
    return bool(attribute) and len(name) <= 200 and all(part.isidentifier() for part in module.split("."))


def imported(name: str, field: str) -> Callable[..., Any]:
    """Return the factory `package.module:factory`; the working folder is on the path.

    Raises JobError, which begins with `field`, where it cannot be imported or called.
    """
    module, _, attribute = name.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        opened = importlib.import_module(module)
    except Refused:
        raise
    except (Exception, SystemExit) as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is not None and f"{module}.".startswith(f"{missing}."):
            raise JobError(f"{field}: {name!r} given; there is no module {missing!r} on the path") from None
        raise JobError(f"{field}: {name!r} cannot be imported: {own.line(error)}") from error
    factory = getattr(opened, attribute, None)
    if factory is None:
        raise JobError(f"{field}: {name!r} given; {module} has no {attribute!r}")
    if not callable(factory):
        raise JobError(f"{field}: {name!r} given; it cannot be called")
    return factory  # type: ignore[no-any-return]  # a user's module is Any to the checker
