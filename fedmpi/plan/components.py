"""The strategy, loop, sampler and schedules of a job, each from its name and options."""

from __future__ import annotations

import numpy as np

from fedmpi import optim, own
from fedmpi.cohort.samplers import SAMPLERS, Sampler
from fedmpi.data import ShardSet
from fedmpi.job import LARGE, Component, Job, JobError, Registry
from fedmpi.plan.plan import Loop
from fedmpi.strategies import STRATEGIES, ServerStep, Strategy, sound
from fedmpi.training import SCHEDULES
from fedmpi.training.batches import work
from fedmpi.training.schedules import Schedule


def made_strategy(job: Job, server: ServerStep | None = None) -> Strategy:
    """Return the job's strategy, sound in itself; without a `server` it is good for its traits alone."""
    strategy = STRATEGIES.choose(job.strategy, server=server or ServerStep(optim.sgd(), 1.0))
    return sound(strategy, job.strategy.name)


def made_loop(job: Job, loops: Registry[Loop]) -> Loop:
    """Return the job's loop, one of `loops` by its name."""
    return loops.choose(job.loop)


def made_schedule(job: Job, component: Component, field: str) -> Schedule:
    """Return a job's schedule, tried in the first and the last round; JobError where it gives no factor of a rate."""
    schedule = SCHEDULES.choose(component, field)
    for round in (1, job.rounds):
        try:
            factor = float(schedule(round, job.rounds))
        except Exception as error:
            reason = f"a schedule takes (round, rounds) and gives a factor: {own.line(error)}"
            raise JobError(f"{field}: {component.name}: {reason}") from error
        if not 0 <= factor <= LARGE:
            raise JobError(
                f"{field}: {component.name} gives {factor:g} in round {round}; should be a factor, 0 or more"
            )
    return schedule


def made_sampler(job: Job, shards: ShardSet) -> Sampler:
    """Return the sampler of a job's cohorts; JobError where a cohort would be larger than the shard set."""
    cohort = job.cohort.of(shards.clients)
    if cohort > shards.clients:
        raise JobError(f"cohort.size: {cohort} given; {job.data.shards} holds {shards.clients} clients")
    sizes = shards.sizes(np.arange(shards.clients))
    return SAMPLERS.choose(
        job.cohort.sampler,
        seed=job.seed,
        clients=shards.clients,
        sizes=sizes,
        ids=lambda: [shards.id(client) for client in range(shards.clients)],
        size=cohort,
        rate=job.cohort.fraction or cohort / shards.clients,
        work=work(sizes, job.local),
    )
