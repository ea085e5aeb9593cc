"""The pipeline of a job's stages, in its order, with the weighing in its place; impossible orders are refused."""

from __future__ import annotations

from fedmpi.aggregation.stages import STAGES, Stage, Weigh
from fedmpi.job import Aggregation, JobError, nearest

PLACES = {"value": "values", "weighed": "weighted values", "integer": "integers"}  # in order, and what a stage works on


def pipeline(aggregation: Aggregation, cap: int, clients: int) -> list[Stage]:
    """Return the stages of a reduce path: values, then the weighing, then integers.

    `cap` is the examples at which a client's weight is 1, `clients` the most in one round.  JobError for an unknown
    stage or option, a stage twice, or an impossible order.
    """
    stages: list[Stage] = []
    names: list[str] = []
    bound: float | None = None
    order = list(PLACES)
    for component in aggregation.stages:
        field = f"aggregation.stages.{component.name}"
        stage = STAGES.choose(component, field, cap=cap, clients=clients, clipped=bound)
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
        if hasattr(stage, "integers"):  # earlier versions read it, and its order would now be another
            raise JobError(f"aggregation.stages: {component.name} has integers; say place = 'integer' (or 'value')")
        if stage.place not in PLACES:
            raise JobError(
                f"aggregation.stages: {component.name} has the place {stage.place!r}; there are {', '.join(PLACES)}"
                f"{nearest(stage.place, PLACES)}"
            )
        if stage.acts_on == "rank" and stage.place == "value":
            raise JobError(
                f"aggregation.stages: {component.name} acts on a rank's sum, which is of weighted values; say "
                f"place = 'weighed' (or 'integer')"
            )
        if stages and stages[-1].acts_on == "rank" and stage.acts_on == "client":
            raise JobError(
                f"aggregation.stages: {component.name} acts on each client's update, but {names[-1]} before it on a "
                f"rank's sum of them; put {component.name} first"
            )
        if stages and order.index(stage.place) < order.index(stages[-1].place):
            raise JobError(
                f"aggregation.stages: {component.name} works on {PLACES[stage.place]}, but {names[-1]} before it on "
                f"{PLACES[stages[-1].place]}; put {component.name} first"
            )
        bound = bound if stage.bound is None else stage.bound
        stages.append(stage)
        names.append(component.name)
    first = next((at for at, stage in enumerate(stages) if stage.place != "value"), len(stages))
    stages.insert(first, Weigh(cap))
    return stages
