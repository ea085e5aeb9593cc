"""A component as a job writes it: a name, and options checked by the component itself."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict


class Component(BaseModel):
    """A component picked by name, with options checked by itself: `"clip"` or `{name = "clip", bound = 1.0}`."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)
    name: str

    @property
    def options(self) -> dict[str, Any]:
        """The options by name: all entries of its table but the fields declared here."""
        return dict(self.model_extra or {})


def named(usual: str | None = None) -> BeforeValidator:
    """Return the validator of a component's field: a bare name becomes a table, one without a name gets `usual`."""

    def read(value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        return {"name": usual, **value} if usual is not None and isinstance(value, dict) else value

    return BeforeValidator(read)


Named = Annotated[Component, named()]
