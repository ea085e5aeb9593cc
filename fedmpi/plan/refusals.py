"""Impossible combinations: one short function each, for a message with the field and the reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from fedmpi.aggregation import Pipeline
from fedmpi.cohort.samplers import Sampler
from fedmpi.data import ShardSet
from fedmpi.evaluation import TASKS
from fedmpi.flow import Task
from fedmpi.job import Job, JobError
from fedmpi.plan.plan import Loop
from fedmpi.strategies import Strategy


@dataclass(frozen=True)
class Asked:
    """The wishes of a job and its script, before anything large is made."""

    job: Job
    shards: ShardSet
    strategy: Strategy
    sampler: Sampler
    stages: Pipeline
    loop: Loop
    model: nn.Module | Callable[..., nn.Module] | None  # the script's own
    task: Task | type | None  # the script's own

    @property
    def personal(self) -> bool:
        """Return whether clients end with models of their own."""
        return self.strategy.personalises and not self.loop.votes

    @property
    def looks(self) -> bool:
        """Return whether the end of the run hangs on scores."""
        return bool(self.job.stop.targets or self.job.stop.patience)


def refuse(asked: Asked) -> None:
    """Raise JobError for the first impossible combination."""
    for refusal in REFUSALS:
        reason = refusal(asked)
        if reason is not None:
            raise JobError(reason)


def classes_for_numbers(asked: Asked) -> str | None:
    """A task of numbers needs numbers as targets; one of a person's own may take classes for them."""
    name, classes = asked.job.task.name if asked.job.task else "", asked.shards.classes
    if asked.task is not None or not classes or name not in TASKS or hasattr(TASKS[name], "label_count"):
        return None
    return f"task: {name} given, but {asked.job.data.shards} holds {len(classes)} classes, not numbers"


def one_model_for_many(asked: Asked) -> str | None:
    """A strategy of several models draws each from a seed of its own, and a module or a file is but one."""
    module = isinstance(asked.model, nn.Module)
    if asked.strategy.models == 1 or not (module or asked.job.model.init is not None):
        return None
    return (
        f"strategy: {asked.job.strategy.name} begins with {asked.strategy.models} models from seeds of their own; "
        f"{'give a factory instead of a module' if module else 'leave model.init out'}"
    )


def other_weights(asked: Asked) -> str | None:
    """A strategy with weights of its own leaves no choice of them."""
    weights = asked.job.aggregation.weights
    others = [own for own in asked.strategy.weights if own != weights]
    if not others or "weights" not in asked.job.aggregation.model_fields_set:
        return None
    return (
        f"aggregation.weights: {weights!r} given, but {asked.job.strategy.name} has its own weighting ({others[0]}); "
        f"leave it out"
    )


def bounded_whole_updates(asked: Asked) -> str | None:
    """A server relying on its clients' whole updates would differ from them where a stage bounds these."""
    if not asked.strategy.whole_update:
        return None
    bounds = [name for name, stage in asked.stages.named() if stage.bound is not None]
    if not bounds:
        return None
    name = asked.job.strategy.name
    return f"aggregation.stages: {bounds[0]} given, but {name} sends changes that must arrive whole"


def kept_in_half_a_round(asked: Asked) -> str | None:
    """What clients keep for a stage is saved once a round, and so goes with one crossing."""
    if not asked.stages.memory or asked.strategy.passes == 1:
        return None
    name = next(name for name, stage in asked.stages.named() if stage.memory)
    return (
        f"aggregation.stages: {name} keeps a memory of each client, but {asked.job.strategy.name} crosses "
        f"{asked.strategy.passes} times a round, and all but one would be lost; leave {name} out"
    )


def drawn_twice(asked: Asked) -> str | None:
    """A loop without a sum has no weight for a client drawn twice."""
    if not (asked.loop.once and asked.sampler.repeats):
        return None
    return (
        f"loop: {asked.job.loop.name} takes a client once a round, and cohort.sampler "
        f"{asked.job.cohort.sampler.name!r} may draw it twice; use another, or replacement = false"
    )


def no_metrics(asked: Asked) -> str | None:
    """A run is scored by one metric at least."""
    if asked.job.evaluation.metrics != ():
        return None
    return "evaluation.metrics: [] given; leave it out for the task's own, or name some"


def stop_without_scores(asked: Asked) -> str | None:
    """A stop looks at the scores of a round, so there must be some before the last."""
    if asked.job.evaluation.every or not asked.looks:
        return None
    return "stop: looks at scores, but evaluation.every = 0 scores the final model alone; let it be 1 or more"


def stop_without_own_scores(asked: Asked) -> str | None:
    """A stop looks at clients' own models where no model is common, so they must be scored."""
    scored = asked.job.evaluation.clients and asked.shards.heldout_examples and not asked.stages.hides
    if not asked.looks or scored or asked.strategy.common or not asked.personal:
        return None
    return (
        f"stop: {asked.job.strategy.name} makes clients' own models alone, and these are not scored; let "
        f"evaluation.clients be true and the shard set keep examples aside (--holdout 0.2)"
    )


REFUSALS: tuple[Callable[[Asked], str | None], ...] = (
    classes_for_numbers,
    one_model_for_many,
    other_weights,
    bounded_whole_updates,
    kept_in_half_a_round,
    drawn_twice,
    no_metrics,
    stop_without_scores,
    stop_without_own_scores,
)
