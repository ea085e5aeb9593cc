"""What a federated model is measured against, in the same terms: everybody's data pooled, and each client alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fedmpi import hear
from fedmpi.cohort.deal import deal
from fedmpi.comm import Solo, wrap
from fedmpi.flow import Comm, Refused
from fedmpi.job import Aggregation, Cohort, Component, Job, Server, Stop
from fedmpi.plan.assemble import assemble, resolved_table
from fedmpi.plan.components import made_strategy
from fedmpi.plan.plan import Plan
from fedmpi.records.folder import RunFolder
from fedmpi.records.journal import Journal
from fedmpi.rounds.first import alike
from fedmpi.rounds.loops import LOOPS
from fedmpi.rounds.run import build, keep_model, lower
from fedmpi.rounds.scribe import Line
from fedmpi.tell import Interrupted
from fedmpi.training.batches import steps

SAMPLE = 100  # clients whose own models are scored on the central test set
Told = Callable[[Line], None] | None


@hear.listening()
def baseline(job: Job, comm: Any, kind: str, out: Path, on_round: Told = None) -> None:
    """Train a baseline of `job` into `out/baselines/KIND`, a run folder of its own.  Collective.

    "pooled" is one learner with everybody's data, which takes as many steps a round as the job's cohort together;
    home trains it alone.  "local" is each client by itself, learning in every round as the job's [local] says; clients
    are dealt to ranks.  Both start from the job's own first model, with a plain step and no stages.

    Raises Interrupted on every rank where one was asked to stop: a baseline keeps nothing halfway.
    """
    comm = wrap(comm)
    folder = RunFolder(out / "baselines" / kind)
    plan: Plan | None = None
    error: Refused | None = None
    try:
        plan = assemble(_plain(job), try_out=comm.is_home, loops=LOOPS)
        if comm.is_home:
            folder.clear()
            folder.write_job({**resolved_table(plan), "run": {"lower": lower(plan)}})
    except Refused as refused:
        error = refused
    comm.settle(error)
    assert plan is not None
    error = None
    try:
        if kind == "local":
            _local(plan, comm, folder, on_round)
        elif comm.is_home:
            _pooled(plan, assemble(job, try_out=False, loops=LOOPS), folder, on_round)
    except Refused as refused:
        if refused.tells is not None:  # settled already: every rank comes here
            raise
        if not isinstance(refused, Interrupted):
            comm.fail(refused)
        error = refused
    comm.settle(error)


def _plain(job: Job) -> Job:
    """The job without what only a federation has."""
    local = job.local
    if made_strategy(job).whole_client:
        local = local.model_copy(update={"batch": 0, "steps": 1, "epochs": None})
    return job.model_copy(
        update={
            "local": local,
            "cohort": Cohort(),
            "loop": Component(name="synchronous"),
            "strategy": Component(name="fedavg"),
            "aggregation": Aggregation(),
            "server": Server(trains=True),
            "stop": Stop(metric=job.stop.metric),
        }
    )


def _pooled(plan: Plan, federated: Plan, folder: RunFolder, on_round: Told) -> None:
    job, shards = plan.job, plan.shards
    everybody = shards.pooled()
    local, share = job.local, federated.cohort / shards.clients
    if local.steps is None:
        work = max(1, int(steps(shards.examples, local.batch, local.epochs, None, local.remainder) * share + 0.5))
    else:
        work = local.steps * federated.cohort
    local = local.model_copy(update={"epochs": None, "steps": work})
    parts = build(replace(plan, job=job.model_copy(update={"local": local})), Solo())
    parts.engine.shards = everybody
    parts.ready()
    parts.state.received.copy_(parts.flat.values)
    parts.state.counts[:] = parts.flat.whole.received.numpy()
    journal, began = Journal(folder.journal), time.perf_counter()
    for round in range(1, job.rounds + 1):
        if hear.asked():
            raise _stopped()
        parts.engine.receive()
        parts.engine.begin()
        begun = time.perf_counter()
        parts.state.round = round
        learned = parts.engine.learn(0)
        trained = time.perf_counter()
        parts.state.received.copy_(parts.flat.values)
        parts.state.counts += learned.counts.numpy()
        last = round == job.rounds
        line: Line = {"round": round, "clients": 1, "steps": learned.steps, "train_loss": _number(learned.loss)}
        line["evaluation"] = {}
        if last or (job.evaluation.every and round % job.evaluation.every == 0):
            clients = np.arange(shards.clients) if last else federated.sampler.draw(round + 1).clients
            central = parts.scorer.central(parts.flat.model, *shards.test())
            rows = [parts.scorer.client(parts.flat.model, *shards.heldout(int(client))) for client in clients]
            spread = parts.scorer.summarise(np.stack(rows)) if parts.scores and rows else {}
            line["evaluation"] = {name: part for name, part in {"test": central, "clients": spread}.items() if part}
        now = time.perf_counter()
        line["seconds"] = {"train": trained - begun, "total": now - begun, "elapsed": now - began}
        _tell(line, last, journal, on_round)
    keep_model(parts, folder, job.rounds)


def _local(plan: Plan, comm: Comm, folder: RunFolder, on_round: Told) -> None:
    job, shards = plan.job, plan.shards
    parts = build(plan, comm)
    alike(comm, parts.flat)
    parts.engine.start()
    first, counts = parts.flat.values.clone(), parts.flat.whole.received.numpy().copy()
    every = job.evaluation.every or job.rounds
    points = sorted({*range(every, job.rounds + 1, every), job.rounds})
    names = parts.scorer.names
    sample = np.unique(np.linspace(0, shards.clients - 1, min(SAMPLE, shards.clients)).astype(int))
    rows = torch.zeros(len(points), shards.clients, len(names) + 1, dtype=torch.float64)
    tests = torch.zeros(len(sample), len(names), dtype=torch.float64)
    began = time.perf_counter()
    assert parts.seat is not None
    stopped: Refused | None = None
    for client in deal(shards.sizes(np.arange(shards.clients)), parts.seats)[parts.seat]:
        parts.state.received.copy_(first)
        parts.state.counts[:] = counts
        for round in range(1, job.rounds + 1):
            if hear.asked():
                stopped = _stopped()
                break
            parts.engine.receive()
            parts.engine.begin()
            parts.state.round = round
            learned = parts.engine.learn(client)
            parts.state.received.copy_(parts.flat.values)
            parts.state.counts += learned.counts.numpy()
            if round in points:
                row = rows[points.index(round), client]
                row[0] = learned.loss
                row[1:] = torch.from_numpy(parts.scorer.client(parts.flat.model, *shards.heldout(client)))
        if client in sample:
            central = parts.scorer.central(parts.flat.model, *shards.test())
            told = [float("nan") if value is None else value for value in (central.get(name) for name in names)]
            tests[int(np.searchsorted(sample, client))] = torch.tensor(told, dtype=torch.float64)
    comm.reduce(rows, tests)
    comm.settle(stopped)
    if not comm.is_home:
        return
    journal, elapsed = Journal(folder.journal), time.perf_counter() - began
    for place, round in enumerate(points):
        losses, scores = rows[place, :, 0].numpy(), rows[place, :, 1:].numpy()
        evaluation: dict[str, Any] = {"clients": parts.scorer.summarise(scores)} if parts.scores else {}
        last = round == job.rounds
        if last and shards.test_examples:
            evaluation["test"] = {
                name: _number(float(np.nanmean(tests[:, at].numpy()))) for at, name in enumerate(names)
            }
        line: Line = {"round": round, "clients": shards.clients, "train_loss": _number(float(np.nanmean(losses)))}
        line |= {"evaluation": evaluation, "seconds": {"elapsed": elapsed * round / job.rounds}}
        _tell(line, last, journal, on_round)


def _stopped() -> Interrupted:
    return Interrupted("stopped before its end: a baseline keeps nothing halfway, it is begun anew")


def _tell(line: Line, last: bool, journal: Journal, on_round: Told) -> None:
    if last:
        line["stopped"] = "rounds"
    journal.write(line)
    if on_round is not None:
        on_round(line)


def _number(value: float) -> float | None:
    return value if np.isfinite(value) else None
