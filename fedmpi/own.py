"""What a person's own code raised, in one line: the exception, and the line of their file where it was."""

from __future__ import annotations

import os
import sysconfig
import traceback
from pathlib import Path
from types import FrameType

LONG = 300  # characters of a message


def told(error: BaseException) -> str:
    """An error in one line, with the last line of the user's own code that it passed: "ValueError: ... (net.py:12)"."""
    text = " ".join(str(error).split())
    text = text if len(text) <= LONG else text[: LONG - 3] + "..."
    where = place(error)
    said = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return f"{said} ({where})" if where else said


def outgrew(error: BaseException) -> bool:
    """Whether a number of the job, and none of the user's own code, became too large for its type."""
    return place(error) is None and (isinstance(error, ArithmeticError) or "overflow" in str(error))


def place(error: BaseException) -> str | None:
    """The file and line of the user's own code where an error was raised, or passed last; None where there is none."""
    if isinstance(error, SyntaxError) and error.filename:  # it was read, not run
        return f"{_short(error.filename)}:{error.lineno}"
    passed = frames(error)
    return f"{_short(passed[-1][0].f_code.co_filename)}:{passed[-1][1]}" if passed else None


def frames(error: BaseException) -> list[tuple[FrameType, int]]:
    """The frames of the user's own code that an error passed, outermost first, each with its line."""
    return [(frame, line) for frame, line in traceback.walk_tb(error.__traceback__) if _theirs(frame)]


def _theirs(frame: FrameType) -> bool:
    """Whether code is the user's: neither ours, nor Python's, nor of what is installed."""
    paths, file = sysconfig.get_paths(), frame.f_code.co_filename
    others = (str(Path(__file__).parent), *(paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")))
    return not file.startswith(("<", *(folder + os.sep for folder in others)))


def _short(file: str) -> str:
    """As a person would name it from where they are."""
    here = os.path.relpath(file)
    return file if here.startswith("..") else here
