"""A trained model out of its run folder."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fedmpi.evaluation.vote import SoftVote
from fedmpi.flat import FlatModel
from fedmpi.flow import Facts, Refused, Task
from fedmpi.job import Job, JobError, nearest
from fedmpi.plan.components import made_loop, made_strategy
from fedmpi.plan.making import dtype_of, made_model, made_task
from fedmpi.records.checkpoint import Checkpoints, read_tensors
from fedmpi.records.folder import RunFolder
from fedmpi.rounds.loops import LOOPS
from fedmpi.tell import note
from fedmpi.use.own import Own, own_models
from fedmpi.use.shards import place_of


@dataclass(frozen=True)
class Trained:
    """A run's model, with the facts of its examples."""

    job: Job
    model: nn.Module
    task: Task
    facts: Facts
    shards: Path
    own: Own | None = None  # clients' models, where they have some and the run's shard set is there
    client: str | None = None  # the owner of `model`; None: it is the common one
    run: tuple[RunFolder, dict[str, Any]] | None = None  # and its table, where `shards` are the run's own

    @property
    def common(self) -> bool:
        """Return whether `model` serves all clients."""
        return made_loop(self.job, LOOPS).votes or made_strategy(self.job).common


def load(folder: Path, which: str = "final", shards: Path | None = None, client: str | None = None) -> Trained:
    """Return the `final` or the `best` model of a run, or a `client`'s own.  Refused where the folder holds none."""
    run = RunFolder(folder)
    table = run.read_job()
    job = run.job_of(table)
    if not run.model.exists():
        raise Refused(f"{folder}: holds no finished model yet; fedmpi train {run.job} --out {folder} --resume goes on")
    tensors, metadata = read_tensors(run.model)
    facts = _facts(run.model, metadata)
    round = metadata.get("round")
    later = [number for number in Checkpoints(run.checkpoints, keep=1).rounds() if round is not None and number > round]
    if later and which == "final" and client is None:
        note(f"{run.model}: is the model of round {round}, and the run has gone on to round {later[-1]} since")
    elif not run.done.exists() and which == "final" and client is None:
        note(f"{run.model}: is the model of round {round}, after which the run broke off")
    task = made_task(job, facts)
    model = _model(job, facts, task, tensors, run.model)
    if which == "best":
        if made_loop(job, LOOPS).votes:
            raise JobError("--checkpoint: best given, but an ensemble is kept as it was in the end alone")
        _restore_best(FlatModel(model, made_strategy(job).stays(model), dtype_of(job)), run.best, metadata)
    elif which != "final":
        raise JobError(f"--checkpoint: {which!r} given; there are final and best{nearest(which, ('final', 'best'))}")
    own = None
    if client is not None or (which == "final" and shards is None):
        own = own_models(job, run, table, client is not None)
    if client is not None:
        if own is None:
            raise JobError(f"--client: {job.strategy.name} makes one model for all clients; leave it out")
        if which != "final":
            raise JobError(f"--checkpoint: {which} given, but clients' own models are there for the final one alone")
        model = own.model(own.index(client))
    place = shards or place_of(job, table)
    return Trained(job, model, task, facts, place, own, client, None if shards else (run, table))


def _facts(path: Path, metadata: Mapping[str, Any]) -> Facts:
    """Return the facts of a model's examples.  Refused where its file lacks them."""
    try:
        return Facts.of(metadata)
    except (KeyError, TypeError):
        raise Refused(f"{path}: is no model that a run wrote: it does not say what it was trained on") from None


def _model(job: Job, facts: Facts, task: Task, tensors: Mapping[str, Tensor], path: Path) -> nn.Module:
    """Return the job's model, or its ensemble, with the values of its file.  Refused where they do not fit it."""
    model = made_model(job, facts, task, init=False)
    if made_loop(job, LOOPS).votes:
        count = len({name.split(".")[1] for name in tensors if "." in name}) or 1
        model = SoftVote([copy.deepcopy(model) for _ in range(count)], task)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise Refused(
            f"{path}: does not fit {job.model.name!r} as it is made now: {' '.join(str(error).split()[:24])}"
        ) from None
    return model


def _restore_best(flat: FlatModel, path: Path, final: Mapping[str, Any]) -> None:
    """Put the best model's values into `flat`.  Refused where the file is not the best named by the `final` one."""
    tensors, metadata = read_tensors(path)
    round = metadata.get("round")
    if final.get("best") not in (None, 0, round):
        raise Refused(f"{path}: holds the model of round {round}, and the best was that of round {final['best']}")
    planes, counts = tensors.get("planes"), metadata.get("counts", flat.whole.received.tolist())
    if planes is None or planes.shape[1:] != (flat.size,) or len(counts) != flat.whole.size:
        raise Refused(f"{path}: is no checkpoint of this run's model")
    flat.values[flat.shared].copy_(planes[0])
    flat.whole.received.copy_(torch.tensor(counts, dtype=torch.int64))
    flat.restore()
