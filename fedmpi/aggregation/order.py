"""The stages of a job in their order, with the weighing in its place; impossible orders are refused."""

from __future__ import annotations

from collections.abc import Callable

from fedmpi.aggregation.pipeline import Pipeline, owns
from fedmpi.aggregation.stages import STAGES, Stage, Weigh
from fedmpi.flow import TOTALS
from fedmpi.job import Aggregation, JobError, nearest

PLACES = {"value": "values", "weighed": "weighted values", "integer": "integers"}  # in order, and what a stage works on
ACTS = {
    "client": "each client's update",
    "rank": "a rank's sum",
    "domain": "a site's sum",
    "home": "the sum of all",
}
MEMORIES = ("planes", "trained", "model", "scalar")
WEIGHTINGS = ("examples", "uniform", "none")
Check = Callable[[str, Stage], str | None]  # of one stage by itself: the fault behind its name


def pipeline(aggregation: Aggregation, cap: int, clients: int, rides: str = "reduce") -> Pipeline:
    """Return the stages of a path: values, then the weighing, then integers.

    `cap` is the examples at which a client's weight is 1, `clients` the most in one round, `rides` what the path makes
    of updates.  JobError for an unknown stage or option, a stage twice, or an impossible order.
    """
    stages: list[Stage] = []
    names: list[str] = []
    bound: float | None = None
    for component in aggregation.stages:
        name = component.name
        stage = STAGES.choose(component, f"aggregation.stages.{name}", cap=cap, clients=clients, clipped=bound)
        if name in names:
            raise JobError(f"aggregation.stages: {name} is there twice; once is enough")
        fault = _fault(stage, name, rides) or _named(stage, name, stages) or _behind(stage, name, stages, names)
        if fault is not None:
            raise JobError(f"aggregation.stages: {fault}")
        bound = bound if stage.bound is None else stage.bound
        stages.append(stage)
        names.append(name)
    first = next((at for at, stage in enumerate(stages) if stage.place != "value"), len(stages))
    stages.insert(first, Weigh(cap))
    names.insert(first, "weigh")
    _fillers(stages, names)
    return Pipeline(stages, names)


def _fault(stage: Stage, name: str, rides: str) -> str | None:
    """Return what is wrong with a stage by itself; None where nothing is."""
    if stage.acts_on not in ACTS:
        return f"{name} acts on {stage.acts_on!r}; there are {', '.join(ACTS)}{nearest(stage.acts_on, ACTS)}"
    if len(stage.count()) != len(stage.counters):
        return f"{name} counts {len(stage.count())} numbers and names {len(stage.counters)} counters for them"
    if rides not in stage.rides:
        way = {"reduce": "be summed", "rows": "lie side by side", "deliver": "come one at a time"}.get(rides, rides)
        return f"{name} cannot {way}, which the path {rides!r} needs"
    if hasattr(stage, "integers"):  # earlier versions read it, and its order would now be another
        return f"{name} has integers; say place = 'integer' (or 'value')"
    if getattr(stage, "exact", False) and stage.place != "integer":  # as earlier versions promised equal bits
        return f"{name} has exact; a stage of the same bits in every order says place = 'integer'"
    if stage.place not in PLACES:
        return f"{name} has the place {stage.place!r}; there are {', '.join(PLACES)}{nearest(stage.place, PLACES)}"
    if stage.acts_on in ("rank", "domain") and stage.place == "value":
        return (
            f"{name} acts on {ACTS[stage.acts_on]}, which is of weighted values; say place = 'weighed' (or 'integer')"
        )
    if stage.memory and stage.acts_on != "client":
        return f"{name} keeps a memory of each client, and acts on {ACTS[stage.acts_on]}"
    if stage.elementwise and stage.memory:
        return f"{name} keeps a memory of each client, which no piece of an update goes with; let elementwise be False"
    for part, kind in stage.memory.items():
        if kind not in MEMORIES:
            return f"{name} has memory[{part!r}] = {kind!r}; there are {', '.join(MEMORIES)}{nearest(kind, MEMORIES)}"
    for part, weighting in stage.notes.items():
        if weighting not in WEIGHTINGS:
            known = f"there are {', '.join(WEIGHTINGS)}{nearest(weighting, WEIGHTINGS)}"
            return f"{name} has notes[{part!r}] = {weighting!r}; {known}"
        if weighting != "none" and stage.place != "value":
            return f"{name} notes {part!r} behind the weights, so notes[{part!r}] should be 'none'"
    if stage.notes and stage.acts_on != "client":
        return f"{name} notes {', '.join(stage.notes)} of each client, and acts on {ACTS[stage.acts_on]}"
    for weighting, total in stage.totals.items():
        if weighting not in WEIGHTINGS[:2] or not total > 0:
            return f"{name} has totals[{weighting!r}] = {total!r}; there are examples and uniform, each above 0"
    return None


def _behind(stage: Stage, name: str, stages: list[Stage], names: list[str]) -> str | None:
    """Return why a stage cannot stand behind those before it; None where it can.

    A stage of home alone has no part in the way out, so its place is all that matters.
    """
    acts, places = list(ACTS), list(PLACES)
    for before, other in zip(stages, names, strict=True):
        turned = stage.acts_on != "home" and acts.index(stage.acts_on) < acts.index(before.acts_on)
        if before.acts_on != "home" and turned:
            there = ACTS[before.acts_on]
            return f"{name} acts on {ACTS[stage.acts_on]}, but {other} before it on {there}; put {name} first"
        if places.index(stage.place) < places.index(before.place):
            there = PLACES[before.place]
            return f"{name} works on {PLACES[stage.place]}, but {other} before it on {there}; put {name} first"
    return None


def _named(stage: Stage, name: str, before: list[Stage]) -> str | None:
    """Return why the names of a stage's memory and notes are none; None where they are its own."""
    for what in ("memory", "notes"):
        for part in getattr(stage, what):
            if any(part in getattr(other, what) for other in before) or part in TOTALS:
                return f"{name} has {what}[{part!r}], which is another's; take another name"
    return None


def _fillers(stages: list[Stage], names: list[str]) -> None:
    """Refuse a stage that fills the buffer of another: only the last that acts on the same sees its output land."""
    for at, stage in enumerate(stages):
        side = ("client",) if stage.acts_on == "client" else ("rank", "domain")
        later = next((other for other in range(at + 1, len(stages)) if stages[other].acts_on in side), None)
        if not owns(stage, "begin"):
            continue
        if stage.acts_on == "home":
            raise JobError(f"aggregation.stages: {names[at]} fills a buffer, and acts on the sum of all; use decode")
        if later is not None:
            raise JobError(
                f"aggregation.stages: {names[at]} fills the buffer that its output lands in, but {names[later]} after "
                f"it changes that; put {names[at]} behind it"
            )
