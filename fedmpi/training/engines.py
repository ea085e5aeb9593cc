"""The engines, by name: how a rank trains its clients."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from fedmpi.flat import FlatModel
from fedmpi.flow import Engine, Examples, Layout, Memory, State
from fedmpi.job import Registry
from fedmpi.training.batched import Batched, one_by_one
from fedmpi.training.course import Course
from fedmpi.training.sequential import Sequential
from fedmpi.training.traced import Traced

SMALL = 2**18  # parameters: where a step's arithmetic outweighs its calls, rows of clients gain nothing


def choice(course: Course, model: nn.Module, cohort: int) -> str:
    """Return the name of the engine for a job and a model: the same on every machine."""
    if not course.strategy.records:
        return "sequential"
    small = sum(parameter.numel() for parameter in model.parameters()) <= SMALL
    return "batched" if small and cohort > 1 and one_by_one(course, model) is None else "traced"


def automatic(
    course: Course,
    flat: FlatModel,
    layout: Layout,
    state: State,
    examples: Examples,
    memory: Memory | None = None,
    staged: bool = False,
    keeps: Mapping[str, str] | None = None,
    cohort: int = 1,
) -> Engine:
    """The engine that suits the job and the model; the resolved job names it."""
    name = choice(course, flat.model, cohort)
    if name == "batched":
        return Batched(course, flat, layout, state, examples, memory, staged, keeps, cohort)
    kind = Traced if name == "traced" else Sequential
    return kind(course, flat, layout, state, examples, memory, staged, keeps)


ENGINES: Registry[Engine] = Registry(
    "local.engine",
    {
        "sequential": Sequential,
        "traced": Traced,
        "batched": Batched,
        "auto": automatic,
    },
    given=("course", "flat", "layout", "state", "examples", "memory", "staged", "keeps", "learner", "cohort"),
    of=Engine,
)
