"""The end of a run in its folder: the machine it ran on, its model, and the word DONE."""

from __future__ import annotations

import platform
from typing import Any

import torch
from torch import nn

from fedmpi.evaluation import higher_is_better
from fedmpi.flow import Refused
from fedmpi.plan import Plan
from fedmpi.records.checkpoint import write_tensors
from fedmpi.records.folder import RunFolder
from fedmpi.rounds.parts import Parts
from fedmpi.tell import Interrupted
from fedmpi.version import VERSION


def machine(parts: Parts) -> dict[str, Any]:
    """Return the facts of this machine and run, for the report, and for a check of the data on resuming."""
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
    """Return the names of the scores that are better when lower: a report cannot ask a user's own metric."""
    scores = ("loss", *plan.metrics)
    return [name for name in scores if not higher_is_better(name, plan.task)]


def keep(parts: Parts, folder: RunFolder) -> None:
    """Write, at home, at the end of a run: the last checkpoint, the model under its own names, and then DONE.

    An interrupted run gets the checkpoint alone, and nothing before the end of round 1.
    """
    scribe = parts.scribe
    assert scribe is not None
    if parts.state.interrupted and parts.state.round == 1:
        return
    scribe.checkpoint()
    if parts.state.interrupted:
        return
    keep_model(parts.plan, parts.model, folder, parts.state.round - 1)
    if not scribe.broken:
        folder.done.write_text(f"{scribe.ended}\n", encoding="utf-8")


def keep_model(plan: Plan, model: nn.Module, folder: RunFolder, round: int) -> None:
    """Write a model under its state_dict names, with the facts of its examples, for later use."""
    facts = {
        "task": plan.job.task.name if plan.job.task else "",
        **plan.shards.facts.table(),
        "round": round,
        "best": plan.stopper.best_round,
    }
    tensors = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in model.state_dict().items()
    }
    write_tensors(folder.model, tensors, facts)


def unfinished(parts: Parts, folder: RunFolder | None) -> Refused | None:
    """Return the reason for a run without a final model, at home; None where it has one."""
    scribe, finished, rounds = parts.scribe, parts.state.round - 1, parts.plan.job.rounds
    assert scribe is not None
    if scribe.broken:
        rest = f"the model of round {finished} is kept" if finished else "no round was finished"
        return Refused(f"{scribe.broken}; {rest}")
    if not parts.state.interrupted:
        return None
    if not finished:
        return Interrupted("stopped before round 1: there is nothing to keep yet")
    rest = f"is kept in {folder.path}" if folder else "is not kept, since the run has no folder"
    return Interrupted(f"stopped after round {finished} of {rounds}, which {rest}")
