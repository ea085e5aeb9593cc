"""A trained model out of its run folder: to score it, to use it."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedmpi.data import ShardSet
from fedmpi.evaluation import Scorer
from fedmpi.evaluation import predictions as predict
from fedmpi.flat import FlatModel
from fedmpi.flow import Refused, Task
from fedmpi.job import Job, JobError, validate
from fedmpi.records.checkpoint import read_tensors
from fedmpi.records.folder import RunFolder
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


def load(folder: Path, which: str = "final", shards: Path | None = None) -> Trained:
    """The `final` or the `best` model of a run.  Refused where the folder holds none."""
    run = RunFolder(folder)
    table = run.read_job()
    job = validate(table)
    if not run.model.exists():
        raise Refused(f"{folder}: holds no finished model yet; fedmpi train {run.job} --out {folder} --resume goes on")
    tensors, said = read_tensors(run.model)
    facts = _Facts(tuple(said["shape"]), tuple(said["target_shape"]), tuple(said["classes"]), said["scale"])
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
    x = _examples(source, trained.facts)
    columns = predict(trained.model, trained.task, x, trained.job.evaluation.batch, "cpu")
    if out.suffix == ".npz":
        np.savez(out, **columns)  # type: ignore[arg-type]  # numpy's stub has allow_pickle among the names
    elif out.suffix == ".csv":
        _write_csv(out, columns, trained.facts.classes)
    else:
        raise JobError(f"--out {out}: end it in .csv or .npz")
    return len(x)


def _examples(source: Path, facts: _Facts) -> Tensor:
    try:
        if source.suffix == ".csv":
            x = _read_csv(source)
        elif source.suffix in (".npz", ".npy"):
            loaded = np.load(source)
            if source.suffix == ".npz" and "x" not in loaded:
                raise Refused(f"{source}: holds no array x; it has {', '.join(loaded)}")
            x = loaded["x"] if source.suffix == ".npz" else loaded
        else:
            raise JobError(f"--source {source}: end it in .csv, .npz or .npy")
    except (OSError, ValueError) as error:
        raise Refused(f"{source}: cannot be read: {error}") from None
    if not len(x):
        raise Refused(f"{source}: holds no examples")
    if x[0].size != int(np.prod(facts.shape)):
        raise Refused(f"{source}: an example has {x[0].size} values; the model takes x {facts.shape}")
    return torch.from_numpy(np.ascontiguousarray(x.reshape(len(x), *facts.shape)))


def _read_csv(source: Path) -> NDArray[Any]:
    """Columns of numbers, with or without a line of names above."""
    with source.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.reader(file) if row]
    if rows and not all(_is_number(word) for word in rows[0]):
        rows = rows[1:]
    return np.array(rows, dtype=np.float32)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _write_csv(out: Path, columns: dict[str, NDArray[Any]], classes: tuple[str, ...]) -> None:
    """A line per example: the prediction (a class by its name), then each class's probability."""
    made = columns["prediction"]
    single = made.reshape(len(made), -1)
    names = ["prediction"] if single.shape[1] == 1 else [f"prediction_{place}" for place in range(single.shape[1])]
    probability = columns.get("probability")
    named = classes and probability is not None
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*names, *(f"p({name})" for name in classes if probability is not None)])
        for place, row in enumerate(single):
            told = [classes[int(value)] for value in row] if named else [value.item() for value in row]
            chances = [] if probability is None else [f"{value:.6g}" for value in probability[place]]
            writer.writerow([*told, *chances])
