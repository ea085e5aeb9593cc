"""A report without its pictures, for the tests of what its page says."""

from __future__ import annotations

import pytest

from fedmpi.report import pictures
from fedmpi.report.axes import Draw


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every picture is there by name, title and caption, and none is drawn."""

    def blank(name: str, title: str, caption: str, show: Draw, height: float = 3.0) -> pictures.Picture:
        return pictures.Picture(name, title, caption, b"png", "<svg></svg>")

    monkeypatch.setattr(pictures, "picture", blank)
