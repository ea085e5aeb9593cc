"""The kinds of values in a job's fields and in components' options."""

from __future__ import annotations

import unicodedata
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

LARGE = 1e30  # times another option it is still a float32
Fraction = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[float, Field(gt=0, le=LARGE)]
NonNegative = Annotated[float, Field(ge=0, le=LARGE)]
Count = Annotated[int, Field(gt=0, lt=2**31)]  # a product of two fits in numpy's int64
Every = Annotated[int, Field(ge=0, lt=2**31)]


def _listed(value: Any) -> Any:
    """Return a list as a tuple, any other value as it is."""
    return tuple(value) if isinstance(value, list) else value


def _folder(name: str) -> str:
    """Return a job's name, which is its run's folder under runs/; ValueError where it is no folder's name."""
    lines = any(unicodedata.category(letter) in ("Cc", "Zl", "Zp") for letter in name)
    if not name.strip() or name in (".", "..") or "/" in name or lines or len(name.encode()) > 200:
        raise ValueError("should be a folder's name: not blank, no slash, no line break, at most 200 bytes")
    return name


Listed = BeforeValidator(_listed)  # TOML has lists where a job keeps tuples
Names = Annotated[tuple[str, ...], Listed]
Folder = Annotated[str, Field(min_length=1), AfterValidator(_folder)]
