"""A rank's parts of a run, wired: the same calls on every rank."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from fedmpi.cohort.pace import Paces
from fedmpi.cohort.seating import Seating, serving
from fedmpi.flat import FlatModel
from fedmpi.flow import Comm, Engine, Examples
from fedmpi.job import JobError
from fedmpi.plan import Plan
from fedmpi.plan.making import made_model
from fedmpi.plan.replica import Replica
from fedmpi.records.folder import RunFolder
from fedmpi.records.profile import Profile
from fedmpi.rounds.listeners import Listener
from fedmpi.rounds.parts import Parts
from fedmpi.rounds.scores import Scores
from fedmpi.rounds.scribe import Scribe
from fedmpi.training.batches import work


def replica(
    plan: Plan,
    comm: Comm,
    folder: RunFolder | None = None,
    examples: Examples | None = None,
    engine: Callable[..., Engine] | None = None,
) -> Replica:
    """Return this rank's copy of the model on its device, and set the number of torch's threads.

    Clients' memory lies in the run's `folder`, if there is one; they train on `examples`, the loop's where None, by
    `engine`, the plan's where None.
    """
    comm.place.bind(plan.job.place.bind)
    torch.set_num_threads(plan.job.threads or comm.place.threads)
    device = comm.place.device(plan.job.device)
    examples = plan.loop.examples(plan) if examples is None else examples
    return Replica.of(
        plan,
        device,
        examples=examples,
        clients=folder.clients if folder else None,
        engine=engine,
        paces=paces_of(plan, comm),
    )


def paces_of(plan: Plan, comm: Comm) -> int:
    """Return how many numbers tell the ranks' pace: none where nobody deals by them."""
    seats = serving(comm.size, plan.job.server.trains)
    return 2 + seats if plan.measured and seats > 1 else 0


def build(
    plan: Plan,
    comm: Comm,
    copy: Replica,
    folder: RunFolder | None = None,
    listeners: Sequence[Listener] = (),
    profile: Profile | None = None,
) -> Parts:
    """Return a rank's parts around its copy of the model, which has the run's first values."""
    job, flat, layout, state, memory = plan.job, copy.flat, copy.layout, copy.state, copy.memory
    model = plan.loop.model(plan, flat)
    stay = memory is not None and not memory.travels
    seating = Seating.of(
        comm.me,
        comm.size,
        job.server.trains,
        lambda clients: work(plan.shards.sizes(clients), job.local),
        stay,
        getattr(copy.engine, "groups", None),
        state.paces if len(state.paces) else None,
    )
    waits = comm.is_home and seating.seat is None
    scores = Scores(plan, copy.engine, model, flat.model, plan.scorer(flat.device), waits, profile)
    path = plan.path(comm, layout, flat.device, copy.staged)
    scribe = None
    if comm.is_home:
        plan.strategy.begin(state, layout, plan.everyone())
        scribe = Scribe(plan, state, folder, listeners, memory is not None, profile)
    paces = Paces(seating.seats) if comm.is_home and len(state.paces) and not stay else None
    return Parts(
        plan, comm, flat, layout, state, copy.engine, memory, path, seating, scores, scribe, model, profile, paces
    )


def begin(parts: Parts, model: nn.Module | Callable[..., nn.Module] | None = None) -> None:
    """Lay the first model in home's state, as the job's seed or pretrained file made it.

    A strategy with several models has the others made too, by the script's `model` factory or the job's, each from a
    seed of its own.
    """
    plan, flat, state = parts.plan, parts.flat, parts.state
    state.round = state.launch = 1
    state.counts[:] = flat.whole.received.numpy()
    values = flat.values
    for place in range(plan.strategy.models):
        if place:
            job = plan.job.model_copy(update={"seed": plan.job.seed + place})
            other = made_model(job, plan.shards.facts, plan.task, model)
            values = FlatModel(other, plan.strategy.stays(other), plan.dtype, flat.device).values
        state.planes[place].copy_(values[flat.shared])
        if place and torch.equal(state.planes[place], state.planes[0]):
            raise JobError(
                f"strategy: {plan.job.strategy.name} needs models that begin apart, and model.name "
                f"{plan.job.model.name!r} begins alike for every seed"
            )
