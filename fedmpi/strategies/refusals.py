"""Fields of a job refused or fixed by several strategies."""

from __future__ import annotations

from fedmpi.job import Job, JobError


def plain_server(job: Job) -> None:
    """Refuse a server optimiser beside a strategy with a server step of its own."""
    if job.server.optimizer.name != "sgd" or any(job.server.optimizer.options.values()):
        raise JobError(
            f"server.optimizer: {job.server.optimizer.name} given, but {job.strategy.name} has a server step of its "
            f"own; leave it out"
        )


def own_steps(job: Job) -> None:
    """Refuse settings of local steps where a strategy takes steps of its own."""
    plain_steps(job)
    if job.local.clip is not None:
        raise JobError(
            f"local.clip: {job.local.clip} given, but {job.strategy.name} takes steps of its own; leave it out"
        )


def plain_steps(job: Job, momentum: bool = False) -> None:
    """Refuse local optimisers whose steps are no sums of gradients; with `momentum`, allow SGD's momentum."""
    name, options = job.local.optimizer.name, {k for k, v in job.local.optimizer.options.items() if v}
    if name != "sgd" or options - ({"momentum", "dampening", "nesterov"} if momentum else set()):
        optimizer = f"{name} with {', '.join(sorted(options))}" if options else name
        raise JobError(
            f"local.optimizer: {optimizer} given, but {job.strategy.name} counts on plain gradient steps; use sgd"
            f"{' (with momentum, if you like)' if momentum else ' alone'}, and local.l2 for a penalty"
        )


def one_gradient(job: Job) -> Job:
    """Return the job with one step over all of a client's examples; JobError for settings of a loop of steps."""
    name = job.strategy.name
    for field, usual in {"batch": 0, "epochs": 1, "steps": 1}.items():
        given = getattr(job.local, field)
        if field in job.local.model_fields_set and given not in (usual, None):
            raise JobError(
                f"local.{field}: {given} given, but {name} takes one gradient over all of a client's examples; "
                f'leave it out, or use strategy "fedavg"'
            )
    if job.local.optimizer.name != "sgd" or any(job.local.optimizer.options.values()) or job.local.clip:
        raise JobError(
            f"local: {name} sends a plain gradient, so it takes no local.optimizer but sgd and no local.clip; "
            f"give the server an optimizer, or use the clip stage"
        )
    local = job.local.model_copy(update={"batch": 0, "epochs": 1, "steps": None})
    return job.model_copy(update={"local": local})
