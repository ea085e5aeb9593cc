"""Display of the waits before the first round: a status line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

from fedmpi import tell
from fedmpi.launch.detect import terminal


class Waiting:
    """Display of the current wait, called with its text, and with "" when it is over; silent unless `wanted`.

    A rank of our own launcher sends the text to the launcher, which alone knows the other lines on its terminal.
    """

    def __init__(self) -> None:
        self.wanted = False
        self.last = ""

    def __call__(self, text: str) -> None:
        if not self.wanted or text == self.last:
            return
        self.last = text
        if os.environ.get(tell.TOLD):
            tell.waits(text)
            return
        with suppress(OSError):  # the terminal was closed
            if terminal() is not None:
                sys.stdout.write(f"\r\x1b[2K{text} ..." if text else "\r\x1b[2K")
            elif text:
                sys.stdout.write(f"{text}\n")
            sys.stdout.flush()


waiting = Waiting()
