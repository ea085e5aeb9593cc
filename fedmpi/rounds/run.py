"""A whole run, from a job to its folder: what `fedmpi train` does on every rank, and what a script calls."""

from __future__ import annotations

import functools
import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fedmpi import hear, tell
from fedmpi.aggregation import ReducePath
from fedmpi.comm import wrap
from fedmpi.data import ShardSet
from fedmpi.evaluation import higher_is_better
from fedmpi.flat import FlatModel
from fedmpi.flow import Comm, Refused, Task, Where
from fedmpi.job import Job, JobError, because, read
from fedmpi.own import outgrew
from fedmpi.plan.assemble import assemble, table_of
from fedmpi.plan.making import made_model
from fedmpi.plan.plan import Plan
from fedmpi.plan.replica import Replica
from fedmpi.records.checkpoint import write_tensors
from fedmpi.records.folder import RunFolder
from fedmpi.records.memory import Memory
from fedmpi.rounds import first
from fedmpi.rounds.loops import LOOPS
from fedmpi.rounds.parts import Parts
from fedmpi.rounds.resume import Found, begin, find
from fedmpi.rounds.scribe import Line, Scribe
from fedmpi.tell import Interrupted, note
from fedmpi.version import VERSION


@dataclass
class Run:
    """What a run leaves with the script that made it.

    On every rank `model` is the final one, on that rank's device.  `lines` are the journal's and `stopped` says why it
    ended: on rank 0 alone, empty and None elsewhere.
    """

    model: nn.Module
    lines: list[dict[str, Any]]
    stopped: str | None
    job: Job


@hear.listening()
def train(
    job: Where | Mapping[str, Any] | Job,
    comm: Any = None,
    *,
    model: nn.Module | Callable[..., nn.Module] | None = None,
    task: Task | type | None = None,
    shards: ShardSet | Where | None = None,
    out: Where | None = None,
    on_round: Callable[[dict[str, Any]], None] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    reschedule: bool = False,
) -> Run:
    """Train a job on every rank of `comm`: an mpi4py communicator, or None for this process alone.  Collective.

    `job` is a path to a TOML file or a dict of the same shape; a script may leave `[model]` and `[data]` out of it and
    give `model` (a module, or a factory of `shape` and `outputs`), `task` (an object or class like those of
    `fedmpi.evaluation`) and `shards` (a folder or a ShardSet) instead.  `out` is the run's folder, None to keep nothing
    on disk.  `on_round(line)` is called on rank 0 with each line of the journal, as it is written.  `resume` goes on
    with the run in `out`, if any, `overwrite` replaces it; with `reschedule` a run that goes on may have another number
    of rounds where its schedules count them.

    Raises Refused (JobError, ShardError) on every rank, with the message on one of them, where the job cannot be run
    or a client's update was not finite.  Raises Interrupted (a Refused) on every rank where one of them was sent USR1:
    the round under way is finished first and its model is kept, so that `resume` goes on with it.
    """
    comm = wrap(comm)
    folder = RunFolder(Path(out)) if out is not None else None
    plan: Plan | None = None
    found: Found | None = None
    # Home first, so that a wrong job is told once, before any other rank has done work.
    for turn in (True, False):
        error: Refused | None = None
        if comm.is_home is turn:
            try:
                plan = assemble(_job(job, model, shards), _shards(shards), model, task, try_out=turn, loops=LOOPS)
                if turn:
                    if plan.shards.note:
                        _told_once(plan.shards.note)
                    for text in plan.notes:
                        note(text)
                if turn and folder is not None:
                    found = find(folder, plan, resume, overwrite, reschedule)
            except Refused as refused:
                error = refused
        comm.settle(error)
    assert plan is not None
    parts: Parts | None = None
    error = None
    try:
        parts = build(plan, comm, folder, on_round)
        if comm.is_home and folder is not None and found is not None:
            first.recall(folder, parts.flat)
    except Refused as refused:
        error = refused
    comm.settle(error)
    assert parts is not None
    first.alike(comm, parts.flat)
    parts.engine.start()
    try:
        if comm.is_home:
            _begin(parts, model)
            parts.ready()
        if comm.is_home and folder is not None:  # now that every rank can begin: what is refused changes nothing
            begin(parts, folder, found, overwrite, {**table_of(plan.job), "run": _machine(parts)})
    except Refused as refused:
        error = refused
    comm.settle(error)
    if comm.is_home:
        tell.waiting(f"training: round {parts.state.round} of {plan.job.rounds}")
    try:
        plan.loop.run(parts)
        if not parts.interrupted:
            parts.engine.begin()
        if parts.scribe is not None and folder is not None:
            _keep(parts, folder)
    except Refused as refused:
        if refused.tells is not None:  # settled already: every rank comes here
            raise
        # One rank alone is in trouble (a shard damaged, a disk full): it cannot come to the next collective.
        comm.fail(refused)
    except (ArithmeticError, RuntimeError) as outgrown:
        if not outgrew(outgrown):
            raise
        told = f"round {parts.state.round}: a number outgrew its type: {because(outgrown)}"
        comm.fail(Refused(f"{told}; take smaller options"))
    scribe = parts.scribe
    comm.settle(_unfinished(parts, folder) if scribe is not None else None)
    return Run(parts.model, scribe.lines if scribe else [], scribe.ended if scribe else None, plan.job)


@functools.cache
def _told_once(text: str) -> None:
    """A note about what a script may train on many times."""
    note(text)


def build(
    plan: Plan,
    comm: Comm,
    folder: RunFolder | None = None,
    on_round: Callable[[Line], None] | None = None,
    staged: bool | None = None,
) -> Parts:
    """A rank's parts: the flat model on its device, the buffers, the engine, the path; at home, the scribe.

    `staged` keeps what MPI touches in host buffers of its own, as a GPU needs it; True does so on the host too.
    """
    job, place = plan.job, comm.place
    torch.set_num_threads(job.threads or place.threads)
    device = place.device(job.device)
    staged = device.type != "cpu" if staged is None else staged
    replica = Replica.of(plan, device, staged)
    flat, layout, state, engine = replica.flat, replica.layout, replica.state, replica.engine
    everyone = job.server.trains or comm.size == 1
    seats = comm.size if everyone else comm.size - 1
    seat = comm.me if everyone else (comm.me - 1 if comm.me else None)
    scorer = plan.scorer(device)
    scores = scorer.names if job.evaluation.clients and plan.shards.heldout_examples else ()
    scribe = None
    if comm.is_home:
        plan.strategy.begin(state, layout, plan.everyone())
        scribe = Scribe(
            folder,
            state,
            plan.strategy,
            plan.stopper,
            job.checkpoint.every,
            job.checkpoint.keep,
            {"digest": plan.shards.digest},
            on_round,
        )
    path = ReducePath(comm, plan.stages, layout, device, staged)
    memory = None
    if engine.remembers:
        memory = Memory(folder.clients if folder else None, engine.remembers, flat.dtype, job.checkpoint.every)
        engine.memory = memory
    return Parts(plan, comm, flat, layout, state, engine, memory, path, scorer, seat, seats, scribe, tuple(scores))


def _begin(parts: Parts, model: nn.Module | Callable[..., nn.Module] | None) -> None:
    """At home: the first model, as the job's seed or pretrained file made it; more models have seeds of their own."""
    plan, flat, state = parts.plan, parts.flat, parts.state
    state.round = 1
    state.counts[:] = flat.whole.received.numpy()
    values = flat.values
    for place in range(plan.strategy.models):
        if place:
            job = plan.job.model_copy(update={"seed": plan.job.seed + place})
            other = made_model(job, plan.shards, plan.task, model)
            values = FlatModel(other, plan.strategy.stays(other), plan.dtype, flat.device).values
        state.planes[place].copy_(values[flat.shared])
        if place and torch.equal(state.planes[place], state.planes[0]):
            raise JobError(
                f"strategy: {plan.job.strategy.name} needs models that begin apart, and model.name "
                f"{plan.job.model.name!r} begins alike for every seed"
            )


def _job(job: Where | Mapping[str, Any] | Job, model: Any, shards: Any) -> Job:
    if isinstance(job, Job):
        return job
    if not isinstance(job, Mapping):
        return read(job)
    table = dict(job)
    if model is not None:
        table.setdefault("model", {"name": getattr(model, "__name__", type(model).__name__)})
    if shards is not None:
        table.setdefault("data", {"shards": str(shards.folder if isinstance(shards, ShardSet) else shards)})
    return read(table)


def _shards(shards: ShardSet | Where | None) -> ShardSet | None:
    return ShardSet.open(Path(shards)) if isinstance(shards, (str, os.PathLike)) else shards


def _machine(parts: Parts) -> dict[str, Any]:
    """Where a run ran: for its report, and so that a resume knows its data."""
    comm = parts.comm
    return {
        "fedmpi": VERSION,
        "torch": torch.__version__,
        "mpi": comm.library,
        "host": platform.node(),
        "ranks": comm.size,
        "threads": torch.get_num_threads(),
        "device": str(parts.flat.device),
        "data": parts.plan.shards.digest,
        "shards": str(parts.plan.shards.folder.resolve()),
        "lower": lower(parts.plan),
    }


def lower(plan: Plan) -> list[str]:
    """The scores of which less is better: a report cannot ask a metric of one's own."""
    scores = ("loss", *plan.metrics)
    return [name for name in scores if not higher_is_better(name, plan.task)]


def _keep(parts: Parts, folder: RunFolder) -> None:
    """At home, when all is done: the last checkpoint, the model under its own names, and then DONE.

    Of a run that is to go on another time the checkpoint is all there is to keep.
    """
    scribe = parts.scribe
    assert scribe is not None
    if parts.interrupted and parts.state.round == 1:
        return
    scribe.checkpoint()
    if parts.interrupted:
        return
    keep_model(parts, folder, parts.state.round - 1)
    if not scribe.broken:
        folder.done.write_text(f"{scribe.ended}\n", encoding="utf-8")


def keep_model(parts: Parts, folder: RunFolder, round: int) -> None:
    """Write the model under its state_dict names, with what it must be told of examples to be used again."""
    plan = parts.plan
    facts = {
        "task": plan.job.task.name if plan.job.task else "",
        "shape": list(plan.shards.shape),
        "target_shape": list(plan.shards.target_shape),
        "classes": list(plan.shards.classes),
        "features": list(plan.shards.features),
        "scale": plan.shards.scale,
        "round": round,
        "best": plan.stopper.best_round,
    }
    tensors = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in parts.model.state_dict().items()
    }
    write_tensors(folder.model, tensors, facts)


def _unfinished(parts: Parts, folder: RunFolder | None) -> Refused | None:
    """At home: why the run has no final model; None where it has one."""
    scribe, made, rounds = parts.scribe, parts.state.round - 1, parts.plan.job.rounds
    assert scribe is not None
    if scribe.broken:
        kept = f"the model of round {made} is kept" if made else "no round was finished"
        return Refused(f"{scribe.broken}; {kept}")
    if not parts.interrupted:
        return None
    if not made:
        return Interrupted("stopped before round 1: there is nothing to keep yet")
    kept = f"is kept in {folder.path}" if folder else "is not kept, since the run has no folder"
    return Interrupted(f"stopped after round {made} of {rounds}, which {kept}")
