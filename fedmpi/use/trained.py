"""A trained model out of its run folder: to score it, to use it."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fedmpi.comm import Solo
from fedmpi.data import ShardSet
from fedmpi.evaluation import Scorer
from fedmpi.evaluation import predictions as predict
from fedmpi.evaluation.vote import Ensemble
from fedmpi.flat import FlatModel
from fedmpi.flow import Facts, Refused, Task
from fedmpi.job import Job, JobError, nearest
from fedmpi.plan.assemble import assemble
from fedmpi.plan.components import made_loop, made_strategy
from fedmpi.plan.making import dtype_of, made_model, made_task
from fedmpi.plan.replica import Replica
from fedmpi.records.checkpoint import Checkpoints, read_tensors
from fedmpi.records.folder import RunFolder
from fedmpi.records.memory import SLOTS_FILE
from fedmpi.rounds import first
from fedmpi.rounds.loops import LOOPS
from fedmpi.tell import note
from fedmpi.use import predict as files


@dataclass(frozen=True)
class Trained:
    """A run's model, with what it was told of its examples."""

    job: Job
    model: nn.Module
    task: Task
    facts: Facts
    shards: Path
    own: _Own | None = None  # clients' models, where they have some and the run's shard set is there
    client: str | None = None  # whose model it is; None: the common one
    run: tuple[RunFolder, dict[str, Any]] | None = None  # and its table, where `shards` are the run's own

    @property
    def common(self) -> bool:
        """`model` is one to use as it is."""
        return made_loop(self.job, LOOPS).votes or made_strategy(self.job).common


class _Own:
    """Clients' own models of a run, made one after another in the same memory."""

    def __init__(self, job: Job, run: RunFolder, shards: ShardSet) -> None:
        self.shards = shards
        plan = assemble(job, shards, try_out=False, loops=LOOPS)
        torch.set_num_threads(job.threads or Solo().place.threads)
        replica = Replica.of(plan, Solo().place.device(job.device), clients=run.clients, writes=False)
        if replica.memory is not None and not (run.clients / SLOTS_FILE).exists():
            raise Refused(f"{run.clients}: is gone, and clients' own models with it")
        found = Checkpoints(run.checkpoints, keep=1).last(newest=replica.memory is not None)
        if found is None:
            raise Refused(f"{run.checkpoints}: holds no checkpoint, and clients' own models are made from the last one")
        tensors, said = found
        replica.state.planes.copy_(tensors["planes"])
        first.recall(run, replica.flat)
        replica.engine.start()
        replica.state.counts[:] = said.get("counts", replica.state.counts)
        replica.state.round = said["round"] + 1
        replica.engine.receive()
        self.replica = replica

    def index(self, client: str) -> int:
        for index in range(self.shards.clients):
            if self.shards.id(index) == client:
                return index
        raise JobError(f"--client: {client!r} given; {self.shards.folder} has {_some(self.shards)}")

    def model(self, index: int) -> nn.Module:
        """A client's own model; the common one where it never trained."""
        self.replica.engine.begin()
        self.replica.engine.personal(index)
        return self.replica.flat.model


def _some(shards: ShardSet) -> str:
    names = [shards.id(index) for index in range(min(5, shards.clients))]
    return ", ".join(names) + (f", ... ({shards.clients} in all)" if shards.clients > len(names) else "")


def load(folder: Path, which: str = "final", shards: Path | None = None, client: str | None = None) -> Trained:
    """The `final` or the `best` model of a run, or a `client`'s own.  Refused where the folder holds none."""
    run = RunFolder(folder)
    table = run.read_job()
    job = run.job_of(table)
    if not run.model.exists():
        raise Refused(f"{folder}: holds no finished model yet; fedmpi train {run.job} --out {folder} --resume goes on")
    tensors, said = read_tensors(run.model)
    facts = _facts(run.model, said)
    later = [round for round in Checkpoints(run.checkpoints, keep=1).rounds() if round > said.get("round", round)]
    if later and which == "final" and client is None:
        note(f"{run.model}: is the model of round {said['round']}, and the run has gone on to round {later[-1]} since")
    task = made_task(job, facts)
    model = made_model(job, facts, task, init=False)
    votes = made_loop(job, LOOPS).votes
    if votes:
        count = len({name.split(".")[1] for name in tensors if "." in name}) or 1
        model = Ensemble([copy.deepcopy(model) for _ in range(count)], task)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise Refused(
            f"{run.model}: does not fit {job.model.name!r} as it is made now: {' '.join(str(error).split()[:24])}"
        ) from None
    if which == "best":
        if votes:
            raise JobError("--checkpoint: best given, but an ensemble is kept as it was in the end alone")
        flat = FlatModel(model, made_strategy(job).stays(model), dtype_of(job))
        _best(run.best, said, flat)
    elif which != "final":
        raise JobError(f"--checkpoint: {which!r} given; there are final and best{nearest(which, ('final', 'best'))}")
    own, its = None, _its(job, table)
    if client is not None or (which == "final" and shards is None):
        own = _own(job, run, table, client is not None)
    if client is not None:
        if own is None:
            raise JobError(f"--client: {job.strategy.name} makes one model for all clients; leave it out")
        if which != "final":
            raise JobError(f"--checkpoint: {which} given, but clients' own models are there for the final one alone")
        model = own.model(own.index(client))
    return Trained(job, model, task, facts, shards or its, own, client, None if shards else (run, table))


def _facts(path: Path, said: Mapping[str, Any]) -> Facts:
    """What a model was told of its examples.  Refused where its file does not say."""
    try:
        return Facts.of(said)
    except (KeyError, TypeError):
        raise Refused(f"{path}: is no model that a run wrote: it does not say what it was trained on") from None


def _best(path: Path, said: Mapping[str, Any], flat: FlatModel) -> None:
    """Put the best model in place.  Refused where the file is not the one that the run ended with."""
    kept, metadata = read_tensors(path)
    round = metadata.get("round")
    if said.get("best") not in (None, 0, round):
        raise Refused(f"{path}: holds the model of round {round}, and the best was that of round {said['best']}")
    planes, counts = kept.get("planes"), metadata.get("counts", flat.whole.received.tolist())
    if planes is None or planes.shape[1:] != (flat.size,) or len(counts) != flat.whole.size:
        raise Refused(f"{path}: is no checkpoint of this run's model")
    flat.values[flat.shared].copy_(planes[0])
    flat.whole.received.copy_(torch.tensor(counts, dtype=torch.int64))
    flat.restore()


def _its(job: Job, table: Mapping[str, Any]) -> Path:
    """Where a run's own shard set is: where it was when the run began, else as the job says, from the folder here."""
    was = table.get("run", {}).get("shards")
    return Path(was) if isinstance(was, str) and Path(was).is_dir() else Path(job.data.shards)


def _open(job: Job, run: RunFolder, table: Mapping[str, Any]) -> ShardSet:
    """A run's own shard set.  Refused where it is not there any more, or holds other data."""
    try:
        shards = ShardSet.open(_its(job, table))
    except Refused as refused:
        raise Refused(
            f"{run.path}: the shard set that the run was trained on cannot be used: {refused}; evaluate takes another "
            f"place by --on, and a relative one counts from the folder that the run was started in"
        ) from None
    if table.get("run", {}).get("data", shards.digest) != shards.digest:
        raise Refused(
            f"{run.path}: {shards.folder} holds other data than the run was trained on; "
            f"evaluate --on {shards.folder} scores on it all the same"
        )
    if shards.note:
        note(shards.note)
    return shards


def _own(job: Job, run: RunFolder, table: Mapping[str, Any], needed: bool) -> _Own | None:
    """Clients' own models, if the job's strategy makes some; None where they are not `needed` and cannot be made."""
    if not made_strategy(job).personalises:
        return None
    try:
        return _Own(job, run, _open(job, run, table))
    except Refused as refused:
        if needed:
            raise
        note(f"clients' own models are left out: {refused}")
        return None


def score(trained: Trained, metrics: Sequence[str] | None = None) -> dict[str, Any]:
    """Scores on a shard set: {"test": ..., "clients": ...}, each where the set has such held-out examples."""
    if trained.own is not None:
        shards = trained.own.shards
    elif trained.run is not None:
        shards = _open(trained.job, *trained.run)
    else:
        shards = ShardSet.open(trained.shards)
        if shards.note:
            note(shards.note)
    if shards.shape != trained.facts.shape or shards.classes != trained.facts.classes:
        raise Refused(
            f"{trained.shards}: its examples are x {shards.shape} of {len(shards.classes)} classes, and the model was "
            f"trained on x {trained.facts.shape} of {len(trained.facts.classes)}"
        )
    if shards.features and trained.facts.features and shards.features != trained.facts.features:
        raise Refused(f"{trained.shards}: its features are not those that the model was trained on, in their order")
    job = trained.job
    scorer = Scorer(trained.task, metrics or job.evaluation.metrics, job.evaluation.batch, "cpu")
    if not trained.common and trained.own is None:
        raise Refused(
            f"{trained.shards}: {job.strategy.name} makes models of clients' own alone, which are scored on the shard "
            f"set that they were trained on, {job.data.shards}"
        )
    found: dict[str, Any] = {}
    everyone = range(shards.clients)
    if trained.common:
        found["test"] = scorer.central(trained.model, *shards.test())
        if shards.heldout_examples:
            rows = [scorer.client(trained.model, *shards.heldout(client)) for client in everyone]
            found["clients"] = scorer.summarise(np.stack(rows))
    if trained.own is not None and shards.heldout_examples:
        rows = [scorer.client(trained.own.model(client), *shards.heldout(client)) for client in everyone]
        found["personal"] = scorer.summarise(np.stack(rows))
    if not any(found.values()):
        raise Refused(f"{trained.shards}: keeps no examples aside to score on; shard it with --holdout 0.2")
    return {name: scores for name, scores in found.items() if scores}


def predictions(trained: Trained, source: Path, out: Path) -> int:
    """Write a prediction for each example of `source`; how many.  Refused for a file that does not fit the model."""
    if trained.client is None and not trained.common:
        raise JobError(f"--client: is missing; {trained.job.strategy.name} makes models of clients' own alone")
    files.check(out)
    x = files.examples(source, trained.facts.shape, trained.facts.features)
    columns = predict(trained.model, trained.task, x, trained.job.evaluation.batch, "cpu")
    files.write(out, columns, trained.facts.classes)
    return len(x)
