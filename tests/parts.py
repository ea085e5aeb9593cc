"""Run the parts of the suite, each a target of the Makefile, and print what each took.

    python -m tests.parts lint+types+ranks-1 unit ranks-2     # parts that a plus joins run side by side

The first step with a part that fails is the last one.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass

MAKE = [os.environ.get("MAKE", "make"), "--no-print-directory"]


@dataclass(frozen=True)
class Took:
    """What a part took: seconds by the clock, and seconds of processors, its children's too."""

    part: str
    right: bool
    seconds: float
    cpu: float


def run(parts: list[str]) -> list[Took]:
    """Run parts side by side; each one's output is shown in one piece when it ends, or at once where it is alone."""
    began = time.monotonic()
    running = {}
    for part in parts:
        print(f"== {part}", flush=True)
        output = tempfile.TemporaryFile() if len(parts) > 1 else None  # noqa: SIM115  (until its part ends)
        child = subprocess.Popen([*MAKE, part], stdout=output, stderr=output and subprocess.STDOUT)
        running[child.pid] = part, output, child  # held: Popen waits itself for one that is dropped
    ended = []
    while running:
        pid, status, used = os.wait4(-1, 0)
        part, output, child = running.pop(pid)
        child.returncode = os.waitstatus_to_exitcode(status)
        seconds, right = time.monotonic() - began, child.returncode == 0
        ended.append(Took(part, right, seconds, used.ru_utime + used.ru_stime))
        if output is not None:
            output.seek(0)
            text = output.read().decode(errors="replace")
            print(f"== {part}: {'right' if right else 'WRONG'}\n{text}", end="", flush=True)
    return ended


def main() -> int:
    began = time.monotonic()
    ended: list[Took] = []
    for step in sys.argv[1:]:
        ended += run(step.split("+"))
        if not all(took.right for took in ended):
            break
    print(f"\n{'':10} {'seconds':>8} {'of CPUs':>8}")
    for took in ended:
        print(f"{took.part:10} {took.seconds:8.0f} {took.cpu:8.0f}{'' if took.right else '   WRONG'}")
    print(f"{'total':10} {time.monotonic() - began:8.0f} {sum(took.cpu for took in ended):8.0f}")
    return 0 if all(took.right for took in ended) else 1


if __name__ == "__main__":
    sys.exit(main())
