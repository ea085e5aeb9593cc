"""The predictions of a trained model for a file of examples."""

from __future__ import annotations

from pathlib import Path

from fedmpi.evaluation import predictions as predict
from fedmpi.job import JobError
from fedmpi.use.examples import examples
from fedmpi.use.load import Trained
from fedmpi.use.write import check, write


def predictions(trained: Trained, source: Path, out: Path) -> int:
    """Write a prediction for each example of `source`, and return their number.  Refused where they do not fit."""
    if trained.client is None and not trained.common:
        raise JobError(f"--client: is missing; {trained.job.strategy.name} makes models of clients' own alone")
    check(out)
    x = examples(source, trained.facts.shape, trained.facts.features)
    columns = predict(trained.model, trained.task, x, trained.job.evaluation.batch, "cpu")
    write(out, columns, trained.facts.classes)
    return len(x)
