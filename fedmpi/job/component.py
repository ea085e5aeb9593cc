"""A component as a job writes it: a name, and options that only the component can check."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict


class Component(BaseModel):
    """A component picked by name, with options that only it can check: `"clip"` or `{name = "clip", bound = 1.0}`."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)
    name: str

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


def named(usual: str | None = None) -> BeforeValidator:
    """Return the validator that reads a bare name as a table, and a table of options alone as about the `usual` one."""

    def read(value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        return {"name": usual, **value} if usual is not None and isinstance(value, dict) else value

    return BeforeValidator(read)


Named = Annotated[Component, named()]
