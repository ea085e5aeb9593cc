"""The scores of a trained model on held-out examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fedmpi.data import ShardSet
from fedmpi.evaluation import Scorer
from fedmpi.flow import Refused
from fedmpi.tell import note
from fedmpi.use.load import Trained
from fedmpi.use.shards import open_own


def score(trained: Trained, metrics: Sequence[str] | None = None) -> dict[str, Any]:
    """Return scores on a shard set: {"test": ..., "clients": ..., "personal": ...}, each where it can be computed.

    "test" is of the common model on the set's test split, "clients" is its spread over clients' held-out examples, and
    "personal" that of clients' own models.  Refused where the set does not fit the model, or holds out no examples.
    """
    shards = _shards(trained)
    _check(trained, shards)
    job = trained.job
    scorer = Scorer(trained.task, metrics or job.evaluation.metrics, job.evaluation.batch, "cpu")
    if not trained.common and trained.own is None:
        raise Refused(
            f"{trained.shards}: {job.strategy.name} makes models of clients' own alone, which are scored on the shard "
            f"set that they were trained on, {job.data.shards}"
        )
    scores: dict[str, Any] = {}
    everyone = range(shards.clients)
    if trained.common:
        scores["test"] = scorer.central(trained.model, *shards.test())
        if shards.heldout_examples:
            rows = [scorer.client(trained.model, *shards.heldout(client)) for client in everyone]
            scores["clients"] = scorer.summarise(np.stack(rows))
    if trained.own is not None and shards.heldout_examples:
        rows = [scorer.client(trained.own.model(client), *shards.heldout(client)) for client in everyone]
        scores["personal"] = scorer.summarise(np.stack(rows))
    if not any(scores.values()):
        raise Refused(f"{trained.shards}: keeps no examples aside to score on; shard it with --holdout 0.2")
    return {name: values for name, values in scores.items() if values}


def _shards(trained: Trained) -> ShardSet:
    """Return the opened shard set to score on: another one where `load` was given it, else the run's own."""
    if trained.own is not None:
        return trained.own.shards
    if trained.run is not None:
        return open_own(trained.job, *trained.run)
    shards = ShardSet.open(trained.shards)
    if shards.note:
        note(shards.note)
    return shards


def _check(trained: Trained, shards: ShardSet) -> None:
    """Raise Refused where a shard set's examples are not of the model's shape, classes and features."""
    if shards.shape != trained.facts.shape or shards.classes != trained.facts.classes:
        raise Refused(
            f"{trained.shards}: its examples are x {shards.shape} of {len(shards.classes)} classes, and the model was "
            f"trained on x {trained.facts.shape} of {len(trained.facts.classes)}"
        )
    if shards.features and trained.facts.features and shards.features != trained.facts.features:
        raise Refused(f"{trained.shards}: its features are not those that the model was trained on, in their order")
