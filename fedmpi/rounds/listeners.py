"""The listeners of a run: each is told every line of the journal, and may answer with a reason to stop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fedmpi.job import JobError, shown
from fedmpi.rounds.line import Line

Listener = Callable[[Line], str | None]
OnRound = Listener | Sequence[Listener] | None


def listeners(on_round: OnRound) -> tuple[Listener, ...]:
    """Return the listeners given by a script; JobError for what cannot be called."""
    if on_round is None:
        return ()
    several = on_round if isinstance(on_round, (list, tuple)) and not callable(on_round) else (on_round,)
    for listener in several:
        if not callable(listener):
            raise JobError(
                f"on_round: {_line(listener)} given; should be a function of a journal line, or a list of such"
            )
    return tuple(several)


def reason(heard: Sequence[Listener], answers: Sequence[Any], line: Line) -> str | None:
    """Return the first reason to stop among the `answers` of those who `heard` a line, None for none of them.

    Raises JobError, naming the listener, for any other answer: a True might mean to go on or to stop.
    """
    for listener, answer in zip(heard, answers, strict=True):
        if answer is not None and not (isinstance(answer, str) and answer.strip()):
            name = getattr(listener, "__qualname__", type(listener).__qualname__)
            raise JobError(
                f"on_round: {name} answered {_line(answer)} to the line of round {line['round']}; should be None to go "
                f"on, or a reason to stop, in words"
            )
    return next((" ".join(answer.split()) for answer in answers if answer is not None), None)


def _line(value: Any) -> str:
    return " ".join(shown(value).split())
