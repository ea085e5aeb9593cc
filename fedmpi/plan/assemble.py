"""From a job to its parts: every name resolved, and what cannot go together refused, before anything is started."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fedmpi import optim, own
from fedmpi.aggregation import Stage, pipeline
from fedmpi.cohort.samplers import SAMPLERS, Sampler
from fedmpi.data import ShardError, ShardSet
from fedmpi.evaluation import Scorer, higher_is_better
from fedmpi.flow import Task
from fedmpi.job import LARGE, Component, Job, JobError, choose, shown
from fedmpi.plan import tryout
from fedmpi.plan.making import DTYPES, dtype_of, made_loop, made_model, made_strategy, made_task
from fedmpi.plan.memory import fits
from fedmpi.plan.plan import Loop, Plan
from fedmpi.plan.refusals import Asked, refuse
from fedmpi.plan.stop import Stopper
from fedmpi.strategies import Server, Strategy
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
    shards = _shards(job, shards)
    job = _filled(job, shards)
    pace = _schedule(job, job.server.schedule, "server.schedule")
    optimizer = optim.optimizer(job.server.optimizer, "server.optimizer")
    strategy = made_strategy(job, Server(optimizer, job.server.lr, lambda round: pace(round, job.rounds)))
    job = _checked(job, strategy)
    sampler = _sampler(job, shards)
    assert job.aggregation.cap is not None
    stages = pipeline(job.aggregation, job.aggregation.cap, sampler.most)
    loop = made_loop(job, loops)
    asked = Asked(job, shards, strategy, stages, loop, model, task)
    refuse(asked)
    job = _settled(job, strategy, sampler, stages)
    task = made_task(job, shards, task)
    module = made_model(job, shards, task, model)
    strategy.stays(module)
    _, dtype = dtype_of(job)
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
        _schedule(job, job.local.schedule, "local.schedule"),
        pace,
        metrics,
        Stopper(job.stop, scores, lambda metric: higher_is_better(metric, task), asked.personal),
    )
    loop.check(plan)
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
    """Return the job with the fields that it left open, so that its copy in the run folder says all."""
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


def _settled(job: Job, strategy: Strategy, sampler: Sampler, stages: Sequence[Stage]) -> Job:
    """Return the job with the fields that its components fix where it leaves them out."""
    changes: dict[str, Any] = {}
    # Large clients come more often already to a uniform mean: weighing them again would count their examples twice.
    weights = [*strategy.weights, *(["uniform"] if sampler.uniform else [])]
    if weights and "weights" not in job.aggregation.model_fields_set:
        changes["aggregation"] = job.aggregation.model_copy(update={"weights": weights[0]})
    if job.threads is None and any(stage.exact for stage in stages):
        # They promise the same bits on any number of ranks, and torch's own sums depend on the number of threads.
        changes["threads"] = 1
    return job.model_copy(update=changes)


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


def _sampler(job: Job, shards: ShardSet) -> Sampler:
    cohort = job.cohort.of(shards.clients)
    if cohort > shards.clients:
        raise JobError(f"cohort.size: {cohort} given; {job.data.shards} holds {shards.clients} clients")
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
