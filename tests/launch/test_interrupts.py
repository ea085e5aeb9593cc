"""Two of the twelve interrupts that `python -m tests.interrupts` makes: one that is asked for, one that is not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fedmpi.launch.local import Mpirun
from tests import interrupts


@pytest.mark.skipif(sys.platform != "linux", reason="processes are found through /proc")
def test_an_interrupted_launch_tells_leaves_nothing_and_goes_on_to_the_same_bits(
    mpirun: Mpirun, tmp_path: Path
) -> None:
    cases = {name: interrupts.CASES[name] for name in ("Ctrl-C", "KILL of rank 1")}
    for seen in interrupts.run(cases, tmp_path):
        assert seen.right, seen
