"""The pipeline of a job's stages, in its order, with the weighing in its place; impossible orders are refused."""

from __future__ import annotations

from fedmpi.aggregation.stages import STAGES, Clip, Stage, Weigh
from fedmpi.job import Aggregation, JobError, choose, nearest


def pipeline(aggregation: Aggregation, cap: int, clients: int) -> list[Stage]:
    """Return the stages of a reduce path: values, then the weighing, then integers.

    `cap` is the examples at which a client's weight is 1, `clients` the most in one round.  JobError for an unknown
    stage or option, a stage twice, or an impossible order.
    """
    stages: list[Stage] = []
    names: list[str] = []
    bound: float | None = None
    for component in aggregation.stages:
        field = f"aggregation.stages.{component.name}"
        stage: Stage = choose(STAGES, component, field, of=Stage, cap=cap, clients=clients, clipped=bound)
        if component.name in names:
            raise JobError(f"aggregation.stages: {component.name} is there twice; once is enough")
        if stage.acts_on not in ("client", "rank"):
            raise JobError(
                f"aggregation.stages: {component.name} acts on {stage.acts_on!r}; the reduce path has 'client' and "
                f"'rank'{nearest(stage.acts_on, ('client', 'rank'))}"
            )
        if len(stage.count()) != len(stage.counters):
            raise JobError(
                f"aggregation.stages: {component.name} counts {len(stage.count())} numbers and names "
                f"{len(stage.counters)} counters for them"
            )
        if "reduce" not in stage.rides:
            raise JobError(f"aggregation.stages: {component.name} cannot be summed, which the reduce path does")
        if not stage.integers and any(earlier.integers for earlier in stages):
            raise JobError(
                f"aggregation.stages: {component.name} works on values, but {names[-1]} before it makes integers; "
                f"put {component.name} first"
            )
        if isinstance(stage, Clip):
            bound = stage.bound
        stages.append(stage)
        names.append(component.name)
    first = next((place for place, stage in enumerate(stages) if stage.integers), len(stages))
    stages.insert(first, Weigh(cap))
    return stages
