"""Going on with a run: the checks of the job, and the checkpoint to go on from.

`find` runs before any rank is started, and at home again; it changes nothing.  `go_on` runs at home, when every rank is
ready.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from fedmpi.flow import Comm, Refused
from fedmpi.job import Component, Job, JobError
from fedmpi.plan.assemble import table_of
from fedmpi.plan.plan import Plan
from fedmpi.records.checkpoint import Checkpoint, Checkpoints
from fedmpi.records.folder import RunFolder
from fedmpi.records.journal import TORN, sealed_journal
from fedmpi.records.memory import Memory
from fedmpi.records.seal import NONE, ordinary
from fedmpi.rounds import first
from fedmpi.rounds.keep import machine
from fedmpi.rounds.line import Line
from fedmpi.rounds.parts import Parts
from fedmpi.tell import note

# What may differ when a run goes on: none of it changes what the remaining rounds compute.
MAY_CHANGE = ("name", "rounds", "stop", "checkpoint", "evaluation", "device", "threads", "place", "data.shards", "run")
ANEW = "--overwrite begins again at round 1, and replaces all that the run left there"


@dataclass(frozen=True)
class Origin:
    """The place from which a run goes on: its last whole checkpoint, the lines before it, and notes for the user."""

    checkpoint: Checkpoint
    lines: list[Line]
    device: str | None  # of the run so far
    notes: list[str]


def find(
    folder: RunFolder, plan: Plan, resume: bool = False, overwrite: bool = False, reschedule: bool = False
) -> Origin | None:
    """Return the place from which the run in a folder goes on; None where it begins anew.

    Raises JobError or Refused where the folder cannot be taken, or this job cannot go on with its run.
    """
    if reschedule and not resume:
        raise JobError("--reschedule: gives a run that goes on another number of rounds; give it with --resume")
    folder.take(resume, overwrite)
    if not resume or not folder.holds_run:
        return None
    table, sealed = folder.sealed_job()
    table.setdefault("local", {}).setdefault("engine", BEFORE)
    old, new = folder.job_of(table), plan.job
    rescheduled = _same(old, table.get("run", {}), plan, reschedule)
    stays = plan.strategy.stays(plan.model)
    last = _checkpoint(
        folder, old.checkpoint.every, newest=bool(plan.strategy.memory) or any(map(stays, plan.model.state_dict()))
    )
    if last is None:
        return None
    checkpoint, notes = last
    done = checkpoint.metadata["round"]
    if checkpoint.metadata.get("digest", plan.shards.digest) != plan.shards.digest:
        raise Refused(f"{folder.checkpoints}: holds a checkpoint of another run, on other data; {ANEW}")
    if new.rounds < done:
        raise JobError(f"rounds: {new.rounds} given, but the run has been through {done}; give at least so many")
    if rescheduled:
        notes.append(
            f"--reschedule: the schedule counts {new.rounds} rounds from now on; the first {done} were trained as of "
            f"{old.rounds}"
        )
    if _metric(checkpoint.metadata["stop"], old, plan):
        notes.append(f"stop: looks at {plan.stopper.metric} from now on; the best so far and patience begin anew")
    lines, lined = _lines(folder, done, notes)
    remembered = "clients" not in checkpoint.metadata or Memory.check(folder.clients, checkpoint.metadata["clients"])
    if not (sealed and checkpoint.sealed and lined and remembered):
        notes.append(f"{folder.path}: {NONE}")
    return Origin(checkpoint, lines, table.get("run", {}).get("device"), notes)


BEFORE = {"name": "sequential"}  # the engine of runs whose jobs name none: earlier fedmpis had no other
ROOM = 4096  # bytes in which home tells an engine


def as_begun(job: Job, comm: Comm, folder: RunFolder | None, resume: bool) -> Job:
    """Return the job with the engine of the run that goes on in the folder, where it leaves the choice open.

    Collective: home alone need see the folder.  What an engine comes to differs in the last bits, so a run keeps its
    own, whatever would be chosen for a new one.
    """
    if folder is None or not resume:
        return job
    told = torch.zeros(ROOM, dtype=torch.uint8)
    if comm.is_home:
        text = json.dumps(_engine(folder)).encode()[:ROOM]
        told[: len(text)] = torch.tensor([*text], dtype=torch.uint8)
    comm.broadcast(told, comm.home[0])
    engine = json.loads(bytes(told.tolist()).rstrip(b"\0"))
    if engine is None or job.local.engine.name != "auto":
        return job
    return job.model_copy(update={"local": job.local.model_copy(update={"engine": Component(**engine)})})


def _engine(folder: RunFolder) -> dict[str, Any] | None:
    """Return the engine of the run in a folder; None where none goes on there, or its job cannot be read."""
    try:
        table = folder.sealed_job()[0] if folder.holds_run else {}
    except Refused:
        return None  # `find` says why
    engine: dict[str, Any] = table.get("local", {}).get("engine", BEFORE)
    return engine if "run" in table else None


def _checkpoint(folder: RunFolder, every: int, newest: bool) -> tuple[Checkpoint, list[str]] | None:
    """Return the last whole checkpoint, with notes on newer ones; None where none was ever written."""
    checkpoints = Checkpoints(folder.checkpoints, keep=1)
    try:
        whole, faults = checkpoints.find(newest)
    except Refused as refused:
        raise Refused(f"--resume: {refused}; {ANEW}") from None
    if whole is not None:
        return whole, [f"{fault}; the run goes on from the checkpoint of round {whole.round}" for fault in faults]
    if faults:
        raise Refused(f"--resume: no checkpoint can be read: {faults[0]}; {ANEW}")
    if any(folder.checkpoints.glob("*.safetensors")) and every and _last_line(folder, every) >= every:
        raise Refused(f"--resume: {folder.checkpoints}: holds the best model alone, from which no run goes on; {ANEW}")
    if folder.done.exists() or folder.model.exists():
        raise Refused(f"--resume: {folder.checkpoints}: holds no checkpoint any more, and the run ended; {ANEW}")
    ordinary(folder.journal)
    return None


def _last_line(folder: RunFolder, otherwise: int) -> int:
    """Return the last round in the journal; `otherwise` where there is no journal.

    The checkpoint of a round is written before its line.
    """
    if not folder.journal.exists():
        return otherwise
    return max(
        (line["round"] for line in sealed_journal(folder.journal)[0] if type(line.get("round")) is int), default=0
    )


def _lines(folder: RunFolder, done: int, notes: list[str]) -> tuple[list[Line], bool]:
    """Return the lines of rounds before `done` (its own is in the checkpoint), and whether they have checksums."""
    lines: list[Line] = []
    sealed, torn = True, False
    if folder.journal.exists():
        lines, sealed, torn = sealed_journal(folder.journal)
    rounds = [line["round"] if type(line.get("round")) is int else 0 for line in lines]
    if 0 in rounds:
        raise Refused(f"{folder.journal}: line {rounds.index(0) + 1} says no round; the file was changed or damaged")
    if torn:
        notes.append(f"{folder.journal}: {TORN}")
    missing = sorted({*range(1, done)} - {*rounds})
    if missing:
        notes.append(f"{folder.journal}: has no line of {_rounds(missing)}; the run goes on without")
    again = [round for round in rounds if round > done]
    if again:
        notes.append(f"{folder.journal}: {_rounds(again)} came after the last checkpoint, and are trained again")
    return [line for line, round in zip(lines, rounds, strict=True) if round < done], sealed


def _rounds(rounds: list[int]) -> str:
    return f"round {rounds[0]}" if len(rounds) == 1 else f"rounds {rounds[0]} to {rounds[-1]}"


def go_on(parts: Parts, folder: RunFolder, origin: Origin | None, overwrite: bool, table: Mapping[str, Any]) -> None:
    """Take the folder, and go on from `origin` or begin anew; at home, when every rank is ready.

    `table` is the resolved job, written to the folder with the facts of this machine.
    """
    scribe = parts.scribe
    assert scribe is not None
    scribe.facts["first"] = first.digest(parts.flat)
    if origin is not None:
        first.check(origin.checkpoint.metadata, scribe.facts["first"], folder)
        _fits(parts, origin)
    if overwrite:
        folder.clear()
    parts.state.launch = folder.launches() + 1
    for text in origin.notes if origin else ():
        note(text)
    if origin is not None:
        scribe.resume(origin.checkpoint.tensors, origin.checkpoint.metadata, origin.lines)
    elif folder.journal.exists():
        aside = folder.keep_journal()
        folder.best.unlink(missing_ok=True)  # perhaps of a run stopped before its first checkpoint was due
        note(
            f"{folder.path}: holds no checkpoint to go on from, so the run begins anew; its journal is now {aside.name}"
        )
    if parts.memory is not None and origin is not None:
        scribe.narrow = not Memory.resume(folder.clients, parts.state.round - 1)
    else:
        shutil.rmtree(folder.clients, ignore_errors=True)  # of a launch without a checkpoint
        if parts.memory is not None:
            Memory.start(folder.clients)
    folder.done.unlink(missing_ok=True)
    if origin is None or not folder.first.exists():
        first.keep(folder, parts.flat)
    folder.write_job({**table, "run": {**machine(parts), "launch": parts.state.launch}})


def _fits(parts: Parts, origin: Origin) -> None:
    """Raise Refused for a checkpoint of another model or missing memory of clients, JobError for another device."""
    checkpoint, job = origin.checkpoint, parts.plan.job
    planes = checkpoint.tensors.get("planes")
    if planes is None or planes.shape != parts.state.planes.shape or planes.dtype != parts.state.planes.dtype:
        held = "no model" if planes is None else f"{tuple(planes.shape)} values of {str(planes.dtype)[6:]}"
        wanted = f"{tuple(parts.state.planes.shape)} of {str(parts.state.planes.dtype)[6:]}"
        raise Refused(
            f"--resume: the checkpoint of round {checkpoint.round} holds {held}, and the model of this job has "
            f"{wanted}: {job.model.name!r} is not what it was when the run began"
        )
    counts = checkpoint.metadata.get("counts", [])
    if len(counts) not in (0, len(parts.state.counts)):
        raise Refused(
            f"--resume: the checkpoint of round {checkpoint.round} holds {len(counts)} counts and flags of the model, "
            f"and {job.model.name!r} has {len(parts.state.counts)}: it is not what it was when the run began"
        )
    kind = parts.flat.device.type
    if origin.device is not None and origin.device.split(":")[0] != kind and parts.plan.stages.exact:
        raise JobError(
            f"--resume: device: the run began on {origin.device} and would go on on {kind}, which gives other bits, "
            f"and the fixed-point stage promises the same; go on where it began"
        )
    if parts.memory is not None and parts.memory.folder is not None:
        Memory.check(parts.memory.folder, checkpoint.metadata.get("clients", {}))


def _same(old: Job, run: Mapping[str, Any], plan: Plan, reschedule: bool) -> bool:
    """Return whether the schedules change with the number of rounds, as `reschedule` allows.

    Raises JobError, naming the fields, where the job differs from the run's in fields that may not change.
    """
    if run.get("data", plan.shards.digest) != plan.shards.digest:
        raise JobError(
            "--resume: data.shards holds other data than the run began with; give the same, or another --out"
        )
    may = [*MAY_CHANGE]
    if plan.stages.exact:
        may.remove("threads")  # torch's own sums depend on it, and such a job promises its bits
    first, last = old.rounds, plan.job.rounds
    both = [*range(1, min(first, last, 1000) + 1), min(first, last)]  # a schedule that counts the rounds differs there
    counted = any(pace(round, first) != pace(round, last) for pace in (plan.schedule, plan.pace) for round in both)
    if counted and not reschedule:
        may.remove("rounds")  # the learning rate of every round depends on their number
    before, after = _leaves(table_of(old)), _leaves(table_of(plan.job))  # fields younger than the run at their defaults
    changed = [
        name
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name) and not any(f"{name}.".startswith(f"{field}.") for field in may)
    ]
    if changed:
        changes = "; ".join(f"{name}: {after.get(name)!r} given, it was {before.get(name)!r}" for name in changed[:4])
        allowed = ", ".join(name for name in may if name != "run")
        way = "; the schedule counts the rounds: --reschedule lets it count anew" if "rounds" in changed else ""
        raise JobError(f"--resume: is another job than the run's ({changes}); only {allowed} may change{way}")
    return counted


def _leaves(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of a table and of those below it, by dotted name."""
    leaves: dict[str, Any] = {}
    for name, value in table.items():
        leaves |= _leaves(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return leaves


def _metric(stop: dict[str, Any], old: Job, plan: Plan) -> bool:
    """Return whether the best so far is of another metric than this job's.

    An earlier fedmpi did not write the metric down.
    """
    if "metric" not in stop:
        asked = [(job.stop.metric, job.evaluation.metrics) for job in (old, plan.job)]
        stop["metric"] = plan.stopper.metric if asked[0] == asked[1] else None
    return bool(stop["metric"] != plan.stopper.metric)
