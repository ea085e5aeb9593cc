"""What may come of a broken input: it is refused in one line, or accepted and then right; all else is a finding."""

from __future__ import annotations

import contextlib
import io
import random
import resource
import signal
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedmpi.flow import Refused

SECONDS = 20  # of wall clock, beside other work: a case takes some hundredths
MEMORY = 6 * 2**30  # bytes of addresses, beyond which a case gets an error instead of the machine's memory
LONGEST = 1500  # characters of a refusal


class Wrong(Exception):
    """An input was accepted and what came of it is not what it says."""


class Hang(BaseException):
    """A case took too long; no Exception, so that nothing that is tried catches it."""


@dataclass(frozen=True)
class Case:
    """`run()` raises Refused, or returns where all is right, or raises Wrong; `told`: what was done to the input."""

    told: str
    run: Callable[[], None]
    refuse: bool = False  # it must not be accepted


@dataclass
class Tally:
    """What became of the cases of one kind."""

    kind: str
    outcomes: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)


Maker = Callable[[random.Random, Path], Case]


def judge(case: Case, show: bool = False) -> tuple[str, str | None]:
    """`("refused" | "accepted" | "finding", what is wrong or None)`; `show` prints what was raised."""
    said = io.StringIO()
    with warnings.catch_warnings(record=True) as spoken, contextlib.redirect_stderr(said), _alarm():
        warnings.simplefilter("always")
        try:
            case.run()
            outcome, wrong = "accepted", "accepted, and it should be refused" if case.refuse else None
        except Refused as refused:
            outcome, wrong = "refused", _badly_told(str(refused))
            if show:
                print(f"refused: {refused}")
        except Wrong as error:
            outcome, wrong = "accepted", f"silently wrong: {error}"
        except Hang:
            outcome, wrong = "hung", f"hung: {SECONDS} s"
        except BaseException as error:
            if show:
                traceback.print_exc(file=sys.stdout)
            outcome, wrong = "broke", _broken(error)
    loud = [
        w
        for w in spoken
        if issubclass(w.category, (UserWarning, RuntimeWarning)) and "/site-packages/" not in w.filename
    ]
    if wrong is None and loud:
        wrong = (
            f"{outcome} with a warning: {' '.join(str(loud[0].message).split())[:200]} ({Path(loud[0].filename).name})"
        )
    stray = [line for line in said.getvalue().splitlines() if not line.startswith("fedmpi: ")]
    if wrong is None and stray:
        wrong = f"{outcome}, with {len(stray)} lines on standard error: {stray[0][:200]!r}"
    return outcome if wrong is None else "finding", wrong


def _broken(error: BaseException) -> str:
    """An error that nobody caught, and where in fedmpi it came from."""
    frames = traceback.extract_tb(error.__traceback__)
    place = next((frame for frame in reversed(frames) if "/fedmpi/" in frame.filename), frames[-1])
    told = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {told} ({Path(place.filename).name}:{place.lineno})"


def _badly_told(text: str) -> str | None:
    """Why a refusal is none that a person can read: one line (a line for each wrong field of a job), not endless."""
    if "Traceback" in text or not text.strip():
        return f"refused with {text!r}"
    lines = text.split("\n")
    fields = all(0 < line.find(": ") < 80 for line in lines)
    if len(lines) > 1 and not fields:
        return f"refused in {len(lines)} lines: {text[:200]!r}"
    if any(not (letter.isprintable() or letter == "\n") for letter in text):
        return f"refused with control characters: {text[:200]!r}"
    if max(map(len, lines)) > LONGEST:
        return f"refused in a line of {max(map(len, lines))} characters: {text[:200]!r}"
    return None


@contextmanager
def _alarm() -> Iterator[None]:
    def ring(signum: int, frame: Any) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def bounded() -> Iterator[None]:
    """A bound on this process's memory: a job may ask for 10^12 units."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY if hard < 0 else min(MEMORY, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def cases(kind: str, make: Maker, count: int, seed: int, folder: Path, start: int = 0) -> Tally:
    """Judge `count` cases; each follows from the seed, the kind and its number alone."""
    tally = Tally(kind)
    with bounded():
        for number in range(start, start + count):
            place = folder / f"{kind}-{number}"
            place.mkdir()
            case = make(random.Random(f"{kind} {seed} {number}"), place)
            outcome, wrong = judge(case, show=count == 1)
            tally.outcomes[outcome] += 1
            if wrong is not None:
                tally.findings.append(f"{kind} seed {seed} case {number}: {case.told}: {wrong}")
            _remove(place)
    return tally


def _remove(place: Path) -> None:
    for path in sorted(place.rglob("*"), key=lambda path: len(path.parts), reverse=True):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    place.rmdir()
