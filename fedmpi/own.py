"""Errors of a person's own code in one line: the exception, and its line in their file."""

from __future__ import annotations

import os
import sysconfig
import traceback
from pathlib import Path
from types import FrameType

LONG = 300  # characters of a message


def line(error: BaseException) -> str:
    """Return an error as one line, with the last place in the user's code it passed: "ValueError: ... (net.py:12)"."""
    text = " ".join(str(error).split())
    text = text if len(text) <= LONG else text[: LONG - 3] + "..."
    where = place(error)
    message = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return f"{message} ({where})" if where else message


def outgrew(error: BaseException) -> bool:
    """Return whether a number of the job, and none of the user's own code, became too large for its type."""
    return place(error) is None and (isinstance(error, ArithmeticError) or "overflow" in str(error))


def place(error: BaseException) -> str | None:
    """Return the file and line of the user's own code where an error was raised, or passed last; None without any."""
    if isinstance(error, SyntaxError) and error.filename:  # it was read, not run
        return f"{_short(error.filename)}:{error.lineno}"
    passed = frames(error)
    return f"{_short(passed[-1][0].f_code.co_filename)}:{passed[-1][1]}" if passed else None


def frames(error: BaseException) -> list[tuple[FrameType, int]]:
    """Return the frames of the user's own code in an error's trace, outermost first, each with its line."""
    return [(frame, number) for frame, number in traceback.walk_tb(error.__traceback__) if _theirs(frame)]


def _theirs(frame: FrameType) -> bool:
    """Return whether code is the user's: neither ours, nor Python's, nor of an installed package."""
    paths, file = sysconfig.get_paths(), frame.f_code.co_filename
    others = (str(Path(__file__).parent), *(paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")))
    return not file.startswith(("<", *(folder + os.sep for folder in others)))


def _short(file: str) -> str:
    """Return a path as a person would name it from the current folder."""
    here = os.path.relpath(file)
    return file if here.startswith("..") else here
