"""Clients one after another, each by recorded steps."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import ClassVar

from fedmpi.flat import FlatModel
from fedmpi.flow import Examples, Layout, Memory, State
from fedmpi.training.course import Course
from fedmpi.training.sequential import Sequential
from fedmpi.training.traced.single import Recorded


class Traced(Sequential):
    """One client after another, by steps recorded once; with `fuse`, products go straight into the weights.

    Without `fuse` it has the very bits of `sequential`.
    """

    # Steps that were taken as always, since no recording holds them, and comparisons in which a recorded one parted.
    counters: ClassVar[tuple[str, ...]] = ("eager", "parted")

    def __init__(
        self,
        course: Course,
        flat: FlatModel,
        layout: Layout,
        state: State,
        examples: Examples,
        memory: Memory | None = None,
        staged: bool = False,
        keeps: Mapping[str, str] | None = None,
        fuse: bool = True,
    ) -> None:
        learner = partial(Recorded, fuses=fuse)
        super().__init__(course, flat, layout, state, examples, memory, staged, keeps, learner)

    def counted(self) -> dict[str, int]:
        """Return this rank's counters since the last call."""
        assert isinstance(self.single, Recorded)
        return self.single.counted()
