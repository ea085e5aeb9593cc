"""A run's shard set that is gone, or holds other data."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedmpi.flow import Refused
from fedmpi.use.evaluate import score
from fedmpi.use.load import load


def test_a_set_that_is_gone_or_holds_other_data_is_told_with_the_run_and_the_way_out(moved: Path) -> None:
    (moved / "a" / "set").rename(moved / "a" / "elsewhere")
    with pytest.raises(Refused, match=r"run: set holds other data than the run was trained on; evaluate --on set"):
        score(load(moved / "run"))
    (moved / "b" / "set").rename(moved / "b" / "elsewhere")
    with pytest.raises(Refused, match=r"run: the shard set .* set: there is no such folder.*--on"):
        score(load(moved / "run"))
