"""From a job to its parts: every name resolved, and what cannot go together refused, before anything is started."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fedmpi import optim, own
from fedmpi.aggregation import pipeline
from fedmpi.cohort.samplers import SAMPLERS, Sampler
from fedmpi.data import ShardError, ShardSet
from fedmpi.evaluation import Scorer, higher_is_better
from fedmpi.flow import Task
from fedmpi.job import LARGE, Component, Job, JobError, choose, shown
from fedmpi.plan import tryout
from fedmpi.plan.making import DTYPES, dtype_of, made_model, made_task
from fedmpi.plan.memory import fits
from fedmpi.plan.plan import Loop, Plan
from fedmpi.plan.stop import Stopper
from fedmpi.strategies import STRATEGIES, Server, Strategy, sound
from fedmpi.training import SCHEDULES
from fedmpi.training.batches import work
from fedmpi.training.schedules import Schedule

__all__ = ["DTYPES", "assemble", "made_model", "made_task", "resolved_table"]


def assemble(
    job: Job,
    shards: ShardSet | None = None,
    model: nn.Module | Callable[..., nn.Module] | None = None,
    task: Task | type | None = None,
    try_out: bool = True,
    *,
    loops: Mapping[str, Callable[..., Loop]],
) -> Plan:
    """Resolve a job, or refuse it: JobError for what was asked, ShardError for what the shard set is.

    A script may bring its own `shards`, `model` and `task` in place of the names in the job.  `try_out` plays a
    small round, so that what does not go together is found before any rank is started.  `loops` are the loops that
    there are, by name.
    """
    shards = shards or _shards(job)
    if shards.clients == 0 or shards.examples == 0:
        raise JobError(f"data.shards: {job.data.shards} holds no training examples")
    job = _resolved(job, shards)
    dtype = dtype_of(job)[1]
    if task is None and job.task is not None and job.task.name == "regression" and shards.classes:
        raise JobError(
            f"task: regression given, but {job.data.shards} holds {len(shards.classes)} classes, not numbers"
        )
    pace = _schedule(job, job.server.schedule, "server.schedule")
    server = Server(
        optim.optimizer(job.server.optimizer, "server.optimizer"), job.server.lr, lambda round: pace(round, job.rounds)
    )
    strategy = sound(choose(STRATEGIES, job.strategy, "strategy", of=Strategy, server=server), job.strategy.name)
    job = _settled(strategy, job)
    if strategy.models > 1 and (isinstance(model, nn.Module) or "init" in job.model.options):
        raise JobError(
            f"strategy: {job.strategy.name} begins with {strategy.models} models from seeds of their own; "
            f"{'give a factory instead of a module' if isinstance(model, nn.Module) else 'leave model.init out'}"
        )
    task = made_task(job, shards, task)
    module = made_model(job, shards, task, model)
    strategy.stays(module)
    fits(
        "strategy",
        sum(part.numel() for part in module.parameters()),
        dtype.itemsize,
        2 + strategy.down + len(strategy.up),
    )
    asked = job.aggregation.weights if "weights" in job.aggregation.model_fields_set else None
    weightings = {"uniform" if weighting == "none" else weighting for weighting in strategy.up} - {"job"}
    for weighting in weightings:
        if asked not in (None, weighting):
            raise JobError(
                f"aggregation.weights: {asked!r} given, but {job.strategy.name} has its own weighting ({weighting}); "
                f"leave it out"
            )
        job = _weighed(job, weighting)
    cohort = job.cohort.of(shards.clients)
    if cohort > shards.clients:
        raise JobError(f"cohort.size: {cohort} given; {job.data.shards} holds {shards.clients} clients")
    sampler = _sampler(job, shards, cohort)
    if sampler.uniform and "weights" not in job.aggregation.model_fields_set:
        # Large clients come more often already: weighing them again would count their examples twice.
        job = _weighed(job, "uniform")
    assert job.aggregation.cap is not None
    stages = pipeline(job.aggregation, job.aggregation.cap, sampler.most)
    optimizer = optim.optimizer(job.local.optimizer, "local.optimizer")
    schedule = _schedule(job, job.local.schedule, "local.schedule")
    if job.evaluation.metrics == ():
        raise JobError("evaluation.metrics: [] given; leave it out for the task's own, or name some")
    if not job.evaluation.every and (job.stop.targets or job.stop.patience):
        raise JobError(
            "stop: looks at scores, but evaluation.every = 0 scores the final model alone; let it be 1 or more"
        )
    metrics = job.evaluation.metrics or tuple(task.metrics)[:1]
    scores = Scorer(task, metrics, job.evaluation.batch, torch.device("cpu")).names
    loop: Loop = choose(loops, job.loop, "loop", of=Loop)
    personal = strategy.personalises and not loop.votes
    stopper = Stopper(job.stop, scores, lambda metric: higher_is_better(metric, task), personal)
    scored = job.evaluation.clients and shards.heldout_examples
    if personal and not strategy.common and not scored and (job.stop.targets or job.stop.patience):
        raise JobError(
            f"stop: {job.strategy.name} makes clients' own models alone, and these are not scored; let "
            f"evaluation.clients be true and the shard set keep examples aside (--holdout 0.2)"
        )
    plan = Plan(
        job,
        shards,
        task,
        module,
        dtype,
        strategy,
        stages,
        cohort,
        sampler,
        loop,
        optimizer,
        schedule,
        pace,
        metrics,
        stopper,
    )
    loop.check(plan)
    if try_out:
        tryout.try_out(plan)
    return plan


def _settled(strategy: Strategy, job: Job) -> Job:
    settled: object = strategy.check(job)
    if not isinstance(settled, Job):
        raise JobError(
            f"strategy: the check of {job.strategy.name} returns {shown(settled)}; it should return the job, with the "
            f"fields that the strategy fixes"
        )
    return settled


def _schedule(job: Job, component: Component, field: str) -> Schedule:
    """A job's schedule, tried in the first and the last round: it should give the factor of a learning rate."""
    schedule: Schedule = choose(SCHEDULES, component, field, of=Callable)
    for round in (1, job.rounds):
        try:
            factor = float(schedule(round, job.rounds))
        except Exception as error:
            told = f"a schedule takes (round, rounds) and gives a factor: {own.told(error)}"
            raise JobError(f"{field}: {component.name}: {told}") from error
        if not 0 <= factor <= LARGE:
            raise JobError(
                f"{field}: {component.name} gives {factor:g} in round {round}; should be a factor, 0 or more"
            )
    return schedule


def _shards(job: Job) -> ShardSet:
    try:
        return ShardSet.open(Path(job.data.shards))
    except ShardError as error:
        raise ShardError(f"data.shards: {error}") from None


def _weighed(job: Job, weights: str) -> Job:
    return job.model_copy(update={"aggregation": job.aggregation.model_copy(update={"weights": weights})})


def _sampler(job: Job, shards: ShardSet, cohort: int) -> Sampler:
    sizes = shards.sizes(np.arange(shards.clients))
    sampler: Sampler = choose(
        SAMPLERS,
        job.cohort.sampler,
        "cohort.sampler",
        of=Sampler,
        seed=job.seed,
        clients=shards.clients,
        sizes=sizes,
        ids=lambda: [shards.id(client) for client in range(shards.clients)],
        size=cohort,
        rate=job.cohort.fraction or cohort / shards.clients,
        work=work(sizes, job.local),
    )
    return sampler


def _resolved(job: Job, shards: ShardSet) -> Job:
    """The job with what it left open filled in, so that its copy in the run folder says all."""
    local, aggregation = job.local, job.aggregation
    if local.epochs is None and local.steps is None:
        local = local.model_copy(update={"epochs": 1})
    if aggregation.cap is None:
        aggregation = aggregation.model_copy(update={"cap": shards.largest})
    changes: dict[str, Any] = {"local": local, "aggregation": aggregation}
    if job.task is None:
        changes["task"] = Component(name=shards.task)
    if job.threads is None and any(stage.name == "fixed-point" for stage in aggregation.stages):
        # Its promise is the same bits on any number of ranks, and torch's own sums depend on the number of threads.
        changes["threads"] = 1
    return job.model_copy(update=changes)


def resolved_table(plan: Plan) -> dict[str, Any]:
    """The resolved job as the table that its file holds."""
    return table_of(plan.job)


def table_of(job: Job) -> dict[str, Any]:
    """A job as the table that its file holds, with every field that has a value."""
    return {name: _plain(value) for name, value in job.model_dump(exclude_none=True).items() if value != {}}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items() if inner is not None and inner != {}}
    return [_plain(inner) for inner in value] if isinstance(value, (list, tuple)) else value
