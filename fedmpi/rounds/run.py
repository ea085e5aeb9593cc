"""A whole run, from a job to its folder: the work of `fedmpi train`, and of a script, on every rank."""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from fedmpi import hear, tell
from fedmpi.comm import Timed, wrap
from fedmpi.data import ShardSet
from fedmpi.flow import Comm, Refused, Task, Where
from fedmpi.job import Job, because, read
from fedmpi.own import outgrew
from fedmpi.plan.assemble import assemble, table_of
from fedmpi.plan.plan import Plan
from fedmpi.plan.replica import Replica
from fedmpi.records.folder import RunFolder
from fedmpi.records.profile import Profile
from fedmpi.rounds import first
from fedmpi.rounds import profiled as timing
from fedmpi.rounds.build import begin, build, replica
from fedmpi.rounds.keep import keep, unfinished
from fedmpi.rounds.listeners import Listener, OnRound, listeners
from fedmpi.rounds.loops import LOOPS
from fedmpi.rounds.parts import Parts
from fedmpi.rounds.resume import Origin, as_begun, find, go_on
from fedmpi.rounds.scribe import written
from fedmpi.rounds.states import bring, meet
from fedmpi.tell import note


@dataclass
class Run:
    """The result of a run, for the script that started it.

    On every rank `model` is the final one, on the rank's device.  `lines` are the journal's and `stopped` is the reason
    of the end: on rank 0 alone, empty and None elsewhere.
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
    on_round: OnRound = None,
    resume: bool = False,
    overwrite: bool = False,
    reschedule: bool = False,
    profile: bool = False,
) -> Run:
    """Train a job on every rank of `comm`: an mpi4py communicator, or None for this process alone.  Collective.

    `job` is a path to a TOML file or a dict of the same shape; a script may leave `[model]` and `[data]` out of it and
    give `model` (a module, or a factory of `shape` and `outputs`), `task` (an object or class like those of
    `fedmpi.evaluation`) and `shards` (a folder or a ShardSet) instead.  `out` is the run's folder, None to keep nothing
    on disk.  `on_round`, a function or a list of them, is called on rank 0 with each line of the journal, as it is
    written.  It answers None, or a reason to stop in a few words: the run ends with the model of that line, as by
    `[stop]`, and the line is written and told once more, with the final scores and `stopped`, the reason.  `resume`
    goes on with the run in `out`, if any, `overwrite` replaces it; with `reschedule` a run that goes on may have
    another number of rounds where its schedules count them.  With `profile` each rank's time is kept in the folder
    `profile/` of `out`, for ui.perfetto.dev and the report.

    Raises Refused (JobError, ShardError) on every rank, with the message on one of them, where the job cannot be run
    or a client's update was not finite.  Raises Interrupted (a Refused) on every rank where one of them was sent USR1:
    the round under way is finished first and its model is kept, so that `resume` goes on with it.
    """
    comm = wrap(comm)
    folder = RunFolder(Path(out)) if out is not None else None
    if profile and folder is None:
        raise Refused("profile: needs a folder to be kept in; give out")
    plan: Plan | None = None
    origin: Origin | None = None
    hearing: tuple[Listener, ...] = ()
    asked: Job | None = None
    error: Refused | None = None
    try:
        asked = _job(job, model, shards)
    except Refused as refused:
        error = refused
    comm.settle(error)
    assert asked is not None
    asked = as_begun(asked, comm, folder, resume)
    # Home first, so that a wrong job is refused once, before any other rank has done work.
    for turn in (True, False):
        error = None
        if comm.is_home is turn:
            try:
                hearing = listeners(on_round) if turn else ()
                plan = assemble(asked, _shards(shards), model, task, try_out=turn, loops=LOOPS)
                if turn:
                    if plan.shards.note:
                        _note_once(plan.shards.note)
                    for text in plan.notes:
                        note(text)
                if turn and folder is not None:
                    origin = find(folder, plan, resume, overwrite, reschedule)
            except Refused as refused:
                error = refused
        comm.settle(error)
    assert plan is not None
    mine = timing.profile(comm) if profile else None
    if mine is not None:
        comm = Timed(comm, functools.partial(mine.span, "collectives"))
    parts = _start(plan, comm, folder, origin, model, hearing, overwrite, mine)
    if comm.is_home:
        tell.waiting(f"training: round {parts.state.round} of {plan.job.rounds}")
    try:
        with timing.profiled(mine, folder), written(parts.scribe):
            meet(parts)
            plan.loop.run(parts)
            _close(parts)
            bring(parts)
            if parts.scribe is not None and folder is not None:
                keep(parts, folder)
    except Refused as refused:
        if refused.tells is not None:  # settled already: every rank comes here
            raise
        # One rank alone is in trouble (a shard damaged, a disk full): it cannot come to the next collective.
        comm.fail(refused)
    except (ArithmeticError, RuntimeError) as outgrown:
        if not outgrew(outgrown):
            raise
        where = f"round {parts.state.round}: a number outgrew its type: {because(outgrown)}"
        comm.fail(Refused(f"{where}; take smaller options"))
    scribe = parts.scribe
    comm.settle(unfinished(parts, folder) if scribe is not None else None)
    if mine is not None and folder is not None and comm.is_scribe:
        timing.put_together(folder)
    return Run(parts.model, scribe.lines if scribe else [], scribe.ended if scribe else None, plan.job)


def _start(
    plan: Plan,
    comm: Comm,
    folder: RunFolder | None,
    origin: Origin | None,
    model: nn.Module | Callable[..., nn.Module] | None,
    hearing: Sequence[Listener],
    overwrite: bool,
    profile: Profile | None,
) -> Parts:
    """Return this rank's parts, home's with the run's first or latest model.  Collective; a refusal changes nothing."""
    copy: Replica | None = None
    error: Refused | None = None
    try:
        copy = replica(plan, comm, folder)
        if comm.is_home and folder is not None and origin is not None:
            first.recall(folder, copy.flat)
    except Refused as refused:
        error = refused
    comm.settle(error)
    assert copy is not None
    first.alike(comm, copy.flat)
    copy.engine.start()
    parts: Parts | None = None
    try:
        parts = build(plan, comm, copy, folder, hearing, profile)
        if comm.is_home:
            begin(parts, model)
            parts.scores.ready()
            if folder is not None:  # now that every rank can begin
                go_on(parts, folder, origin, overwrite, table_of(plan.job))
                shutil.rmtree(folder.profile, ignore_errors=True)  # an earlier launch's
    except Refused as refused:
        error = refused
    comm.settle(error)
    assert parts is not None
    return parts


def _close(parts: Parts) -> None:
    """Score the final model centrally and on every client's held-out examples; home writes the last line.  Collective.

    An interrupted run has no final model yet: only its clients' memory is written to disk.
    """
    if parts.memory is not None:
        parts.memory.sync()
    if parts.state.interrupted:
        return
    parts.engine.receive()
    parts.engine.begin()
    evaluation = parts.scores.final(parts.comm, parts.seating)
    if parts.scribe is not None:
        parts.scribe.close(evaluation)
    parts.engine.begin()  # scoring laid clients' own models in its place


@functools.cache
def _note_once(text: str) -> None:
    """Print a note once, though a script may train on the same set many times."""
    note(text)


def _job(job: Where | Mapping[str, Any] | Job, model: Any, shards: Any) -> Job:
    """Return the job, its model and data named after the script's own where a dict leaves them out."""
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
