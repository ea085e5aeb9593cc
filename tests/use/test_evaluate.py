"""A run scored on its own shard set, from any folder, and on another."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedmpi.use.evaluate import score
from fedmpi.use.load import load


def test_a_run_finds_its_own_set_from_any_folder(moved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = score(load(moved / "run"))
    monkeypatch.chdir(moved / "a")
    assert here == score(load(moved / "run"))
    assert here != score(load(moved / "run", shards=moved / "b" / "set"))
