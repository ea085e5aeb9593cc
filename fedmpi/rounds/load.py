"""A trained model out of its run folder: to score it, to use it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from fedmpi.data import ShardSet
from fedmpi.evaluation import Scorer
from fedmpi.evaluation import predictions as predict
from fedmpi.flat import FlatModel
from fedmpi.flow import Refused, Task
from fedmpi.job import Job, JobError, validate
from fedmpi.records.checkpoint import read_tensors
from fedmpi.records.folder import RunFolder
from fedmpi.rounds import predict as files
from fedmpi.rounds.assemble import DTYPES, made_model, made_task


@dataclass(frozen=True)
class Trained:
    """A run's model, with what it was told of its examples."""

    job: Job
    model: nn.Module
    task: Task
    facts: _Facts
    shards: Path


@dataclass(frozen=True)
class _Facts:
    shape: tuple[int, ...]
    target_shape: tuple[int, ...]
    classes: tuple[str, ...]
    scale: float
    features: tuple[str, ...]


def load(folder: Path, which: str = "final", shards: Path | None = None) -> Trained:
    """The `final` or the `best` model of a run.  Refused where the folder holds none."""
    run = RunFolder(folder)
    table = run.read_job()
    job = validate(table)
    if not run.model.exists():
        raise Refused(f"{folder}: holds no finished model yet; fedmpi train {run.job} --out {folder} --resume goes on")
    tensors, said = read_tensors(run.model)
    facts = _Facts(
        shape=tuple(said["shape"]),
        target_shape=tuple(said["target_shape"]),
        classes=tuple(said["classes"]),
        scale=said["scale"],
        features=tuple(said.get("features", [])),
    )
    task = made_task(job, facts)
    model = made_model(job, facts, task, init=False)
    model.load_state_dict(tensors)
    if which == "best":
        kept, _ = read_tensors(run.checkpoints / "best.safetensors")
        flat = FlatModel(model, dtype=DTYPES[job.model.options.get("dtype", "float32")])
        flat.values[flat.shared].copy_(kept["planes"][0])
    elif which != "final":
        raise JobError(f"--checkpoint: {which!r} given; there are final and best")
    return Trained(job, model, task, facts, shards or Path(job.data.shards))


def score(trained: Trained, metrics: Sequence[str] | None = None) -> dict[str, Any]:
    """Scores on a shard set: {"test": ..., "clients": ...}, each where the set has such held-out examples."""
    shards = ShardSet.open(trained.shards)
    if shards.shape != trained.facts.shape or shards.classes != trained.facts.classes:
        raise Refused(
            f"{trained.shards}: its examples are x {shards.shape} of {len(shards.classes)} classes, and the model was "
            f"trained on x {trained.facts.shape} of {len(trained.facts.classes)}"
        )
    if shards.features and trained.facts.features and shards.features != trained.facts.features:
        raise Refused(f"{trained.shards}: its features are not those that the model was trained on, in their order")
    job = trained.job
    scorer = Scorer(trained.task, metrics or job.evaluation.metrics, job.evaluation.batch, "cpu")
    found: dict[str, Any] = {"test": scorer.central(trained.model, *shards.test())}
    if shards.heldout_examples:
        rows = np.stack([scorer.client(trained.model, *shards.heldout(client)) for client in range(shards.clients)])
        found["clients"] = scorer.summarise(rows)
    if not any(found.values()):
        raise Refused(f"{trained.shards}: keeps no examples aside to score on; shard it with --holdout 0.2")
    return {name: scores for name, scores in found.items() if scores}


def predictions(trained: Trained, source: Path, out: Path) -> int:
    """Write a prediction for each example of `source`; how many.  Refused for a file that does not fit the model."""
    files.check(out)
    x = files.examples(source, trained.facts.shape, trained.facts.features)
    columns = predict(trained.model, trained.task, x, trained.job.evaluation.batch, "cpu")
    files.write(out, columns, trained.facts.classes)
    return len(x)
