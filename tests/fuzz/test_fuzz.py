"""A few broken inputs of each kind: refused in one line, or accepted and right (`-m tests.fuzz`: thousands)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.kinds import KINDS, ready

COUNTS = {"jobs": 30, "shards": 60, "tables": 40, "arrays": 40, "flips": 1}


@pytest.mark.parametrize("kind", KINDS)
def test_broken_inputs_are_refused_in_a_line_or_accepted_and_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    tallies = list(ready(kind, tmp_path, COUNTS[kind], seed=0))
    assert [finding for tally in tallies for finding in tally.findings] == []
    outcomes = sum((tally.outcomes for tally in tallies[1:]), tallies[0].outcomes)
    assert outcomes["refused"] > 0
    assert outcomes["accepted"] > 0 or kind == "jobs"
