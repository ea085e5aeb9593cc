"""From a job to its plan: every name resolved, and the impossible refused, before anything is started."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fedmpi import optim
from fedmpi.aggregation import PATHS, Pipeline, pipeline
from fedmpi.cohort.samplers import Sampler
from fedmpi.data import ShardError, ShardSet
from fedmpi.evaluation import Scorer, higher_is_better
from fedmpi.flow import Task
from fedmpi.job import Component, Job, JobError, Registry, shown
from fedmpi.plan import tryout
from fedmpi.plan.components import made_loop, made_sampler, made_schedule, made_strategy
from fedmpi.plan.fits import fits
from fedmpi.plan.making import dtype_of, made_model, made_task
from fedmpi.plan.plan import Loop, Plan
from fedmpi.plan.refusals import Asked, refuse
from fedmpi.plan.stop import Stopper
from fedmpi.strategies import ServerStep, Strategy
from fedmpi.training import choice


def assemble(
    job: Job,
    shards: ShardSet | None = None,
    model: nn.Module | Callable[..., nn.Module] | None = None,
    task: Task | type | None = None,
    try_out: bool = True,
    *,
    loops: Registry[Loop],
) -> Plan:
    """Return the plan of a job; JobError where the job cannot be, ShardError where its shard set cannot.

    A script may bring its own `shards`, `model` and `task` in place of the names in the job.  `try_out` plays a small
    round, so that a part at odds with the others is met before any rank is started.  `loops` are all loops by name.
    """
    shards = _shards(job, shards)
    job = _filled(job, shards)
    pace = made_schedule(job, job.server.schedule, "server.schedule")
    optimizer = optim.optimizer(job.server.optimizer, "server.optimizer")
    strategy = made_strategy(job, ServerStep(optimizer, job.server.lr, lambda round: pace(round, job.rounds)))
    job = _checked(job, strategy)
    sampler = made_sampler(job, shards)
    assert job.aggregation.cap is not None
    rides = getattr(PATHS.find(job.aggregation.path.name), "rides", "reduce")
    stages = pipeline(job.aggregation, job.aggregation.cap, sampler.most, rides)
    loop = made_loop(job, loops)
    asked = Asked(job, shards, strategy, sampler, stages, loop, model, task)
    refuse(asked)
    job = _settled(job, strategy, sampler, stages)
    task = made_task(job, shards.facts, task)
    module = made_model(job, shards.facts, task, model)
    strategy.stays(module)
    dtype = dtype_of(job)
    values = sum(part.numel() for part in module.parameters())
    fits("strategy", values, dtype.itemsize, 2 + strategy.down + len(strategy.up))
    metrics = job.evaluation.metrics or tuple(task.metrics)[:1]
    scores = Scorer(task, metrics, job.evaluation.batch, torch.device("cpu")).names
    plan = Plan(
        job,
        shards,
        task,
        module,
        dtype,
        strategy,
        stages,
        job.cohort.of(shards.clients),
        sampler,
        loop,
        optim.optimizer(job.local.optimizer, "local.optimizer"),
        made_schedule(job, job.local.schedule, "local.schedule"),
        pace,
        metrics,
        Stopper(job.stop, scores, lambda metric: higher_is_better(metric, task), asked.personal),
    )
    loop.check(plan)
    plan.job = _engined(plan)
    if try_out:
        tryout.try_out(plan)
    return plan


def _shards(job: Job, shards: ShardSet | None) -> ShardSet:
    """Return the shard set of a script or of the job; JobError where it holds nothing to train on."""
    try:
        shards = shards or ShardSet.open(Path(job.data.shards))
    except ShardError as error:
        raise ShardError(f"data.shards: {error}") from None
    if shards.clients == 0 or shards.examples == 0:
        raise JobError(f"data.shards: {job.data.shards} holds no training examples")
    return shards


def _filled(job: Job, shards: ShardSet) -> Job:
    """Return the job with its open fields filled in, so that its copy in the run folder says all."""
    local, aggregation = job.local, job.aggregation
    if local.epochs is None and local.steps is None:
        local = local.model_copy(update={"epochs": 1})
    if aggregation.cap is None:
        aggregation = aggregation.model_copy(update={"cap": shards.largest})
    task = job.task or Component(name=shards.task)
    return job.model_copy(update={"local": local, "aggregation": aggregation, "task": task})


def _checked(job: Job, strategy: Strategy) -> Job:
    """Return the job with the fields that its strategy fixes."""
    checked: object = strategy.check(job)
    if not isinstance(checked, Job):
        raise JobError(
            f"strategy: the check of {job.strategy.name} returns {shown(checked)}; it should return the job, with the "
            f"fields that the strategy fixes"
        )
    return checked


def _settled(job: Job, strategy: Strategy, sampler: Sampler, stages: Pipeline) -> Job:
    """Return the job with the fields fixed by its components where it leaves them out."""
    changes: dict[str, Any] = {}
    # Large clients come more often already to a uniform mean: weighing them again would count their examples twice.
    weights = [*strategy.weights, *(["uniform"] if sampler.uniform else [])]
    if weights and "weights" not in job.aggregation.model_fields_set:
        changes["aggregation"] = job.aggregation.model_copy(update={"weights": weights[0]})
    if job.threads is None and stages.exact:
        # They promise the same bits on any number of ranks, and torch's own sums depend on the number of threads.
        changes["threads"] = 1
    return job.model_copy(update=changes)


def _engined(plan: Plan) -> Job:
    """Return the job with the engine that suits it, where it asks for that."""
    job = plan.job
    if job.local.engine.name != "auto":
        return job
    name = choice(plan.course(), plan.model, plan.together)
    return job.model_copy(update={"local": job.local.model_copy(update={"engine": Component(name=name)})})


def resolved_table(plan: Plan) -> dict[str, Any]:
    """Return the resolved job as the table of its file."""
    return table_of(plan.job)


def table_of(job: Job) -> dict[str, Any]:
    """Return a job as the table of its file, with every field except empty ones."""
    return {name: _plain(value) for name, value in job.model_dump(exclude_none=True).items() if value != {}}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items() if inner is not None and inner != {}}
    return [_plain(inner) for inner in value] if isinstance(value, (list, tuple)) else value
