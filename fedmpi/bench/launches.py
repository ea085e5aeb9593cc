"""Launches of what is measured: each in new processes, with nothing of ours beside them."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from fedmpi import launch
from fedmpi.bench.parts import ANSWER
from fedmpi.flow import Refused
from fedmpi.launch import local
from fedmpi.tell import TOLD


def measure(part: str, ranks: int, launcher: str | None = None, **spec: Any) -> dict[str, Any]:
    """Return the answer of one launch of `ranks` that measures a part of PARTS; `spec` says of what.

    `launcher`, where given, starts ranks in place of mpirun: its `{ranks}` is their number.  Raises Refused where the
    launch fails, with the last lines it printed.
    """
    spec = {"part": part, "began": time.time(), **spec}
    ours = [sys.executable, "-m", "mpi4py", "-m", "fedmpi", "bench", "--part", json.dumps(spec)]
    with ExitStack() as stack:
        environ = launch.environment(ranks)
        if launcher is not None:
            words = [*shlex.split(launcher.replace("{ranks}", str(ranks))), *ours]
        elif ranks > 1:
            mpirun = launch.find_mpirun()
            environ = stack.enter_context(local.segments(mpirun, ranks, ()))
            words = [*local.start(mpirun, ranks), *ours]
        else:
            words = [sys.executable, *ours[3:]]
            environ.pop(launch.RANKS)
        environ.pop(TOLD)  # nobody reads the ranks' records here
        try:
            done = subprocess.run(words, env={**environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
        except OSError as error:
            raise Refused(f"bench: {words[0]} cannot be started: {error.strerror}") from None
    for line in reversed(done.stdout.splitlines()):
        if line.startswith(ANSWER) and not done.returncode:
            answer: dict[str, Any] = json.loads(line.removeprefix(ANSWER))
            return answer
    raise Refused(f"bench: {part} on {ranks} ranks ended with {done.returncode}: {_last([done.stderr, done.stdout])}")


def _last(outputs: Sequence[str], lines: int = 6) -> str:
    """Return the last lines of what a launch printed, our own words alone where there are some."""
    printed = [line for output in outputs for line in output.strip().splitlines()]
    printed = [line.removeprefix("fedmpi: ") for line in printed if line.startswith("fedmpi: ")][-1:] or printed
    return os.linesep.join(printed[:lines] if len(printed) <= lines else printed[-lines:]) or "it printed nothing"
