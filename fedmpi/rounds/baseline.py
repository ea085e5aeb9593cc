"""Baselines of a federated model, in the same terms: everybody's data pooled, and each client alone."""

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
from fedmpi.evaluation import ready
from fedmpi.flow import Comm, Refused
from fedmpi.job import Aggregation, Cohort, Component, Job, Server, Stop
from fedmpi.plan.assemble import assemble, resolved_table
from fedmpi.plan.components import made_strategy
from fedmpi.plan.plan import Plan
from fedmpi.records.folder import RunFolder
from fedmpi.records.journal import Journal
from fedmpi.rounds.alone import Alone
from fedmpi.rounds.keep import keep_model, lower
from fedmpi.rounds.line import Line
from fedmpi.rounds.loops import LOOPS
from fedmpi.tell import Interrupted
from fedmpi.training.batches import steps

SAMPLE = 100  # clients whose own models are scored on the central test set
OnRound = Callable[[Line], None] | None


@hear.listening()
def baseline(job: Job, comm: Any, kind: str, out: Path, on_round: OnRound = None) -> None:
    """Train a baseline of `job` into `out/baselines/KIND`, a run folder of its own.  Collective.

    "pooled" is one learner with everybody's data, trained by home alone, with as many steps a round as the job's cohort
    together.  "local" is each client by itself, trained in every round by the job's [local]; clients are dealt to
    ranks.  Both start from the job's own first model, with a plain step and no stages.

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
    """Return the job without its federation: all clients, FedAvg, no stages, and home trains too."""
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


def _pooled(plan: Plan, federated: Plan, folder: RunFolder, on_round: OnRound) -> None:
    """Train one learner with everybody's data, as many steps a round as the job's cohort takes together."""
    job, shards = plan.job, plan.shards
    local, share = job.local, federated.cohort / shards.clients
    if local.steps is None:
        work = max(1, int(steps(shards.examples, local.batch, local.epochs, None, local.remainder) * share + 0.5))
    else:
        work = local.steps * federated.cohort
    local = local.model_copy(update={"epochs": None, "steps": work})
    alone = Alone(replace(plan, job=job.model_copy(update={"local": local})), Solo(), shards.pooled())
    if shards.test_examples:
        ready(plan.task, plan.metrics)
    journal, began = Journal(folder.journal), time.perf_counter()
    for round in range(1, job.rounds + 1):
        begun = time.perf_counter()
        learned = alone.learn(0, round)
        trained = time.perf_counter()
        last = round == job.rounds
        line: Line = {"round": round, "clients": 1, "steps": int(learned.steps[0])}
        line["train_loss"] = _number(float(learned.loss[0]))
        line["evaluation"] = {}
        if last or (job.evaluation.every and round % job.evaluation.every == 0):
            clients = np.arange(shards.clients) if last else federated.sampler.draw(round + 1).clients
            rows = [alone.scores(int(client)) for client in clients] if alone.scored else []
            parts = {"test": alone.central(), "clients": alone.scorer.summarise(np.stack(rows)) if rows else {}}
            line["evaluation"] = {name: part for name, part in parts.items() if part}
        now = time.perf_counter()
        line["seconds"] = {"train": trained - begun, "total": now - begun, "elapsed": now - began}
        _tell(line, last, journal, on_round)
    keep_model(plan, alone.model, folder, job.rounds)


def _local(plan: Plan, comm: Comm, folder: RunFolder, on_round: OnRound) -> None:
    """Train each client by itself, from the same first model; clients are dealt to ranks."""
    job, shards = plan.job, plan.shards
    alone = Alone(plan, comm)
    every = job.evaluation.every or job.rounds
    points = sorted({*range(every, job.rounds + 1, every), job.rounds})
    names = alone.scorer.names
    sample = np.unique(np.linspace(0, shards.clients - 1, min(SAMPLE, shards.clients)).astype(int))
    rows = torch.zeros(len(points), shards.clients, len(names) + 1, dtype=torch.float64)
    tests = torch.zeros(len(sample), len(names), dtype=torch.float64)
    began = time.perf_counter()
    stopped: Refused | None = None
    for client in deal(shards.sizes(np.arange(shards.clients)), comm.size)[comm.me]:
        alone.anew()
        try:
            for round in range(1, job.rounds + 1):
                learned = alone.learn(client, round)
                if round in points:
                    row = rows[points.index(round), client]
                    row[0] = float(learned.loss[0])
                    row[1:] = torch.from_numpy(alone.scores(client))
        except Interrupted as interrupted:  # the other ranks are told after the reduction
            stopped = interrupted
            break
        if client in sample:
            central = alone.central()
            scores = [float("nan") if value is None else value for value in (central.get(name) for name in names)]
            tests[int(np.searchsorted(sample, client))] = torch.tensor(scores, dtype=torch.float64)
    comm.reduce(rows, tests)
    comm.settle(stopped)
    if not comm.is_home:
        return
    journal, elapsed = Journal(folder.journal), time.perf_counter() - began
    for place, round in enumerate(points):
        losses, spread = rows[place, :, 0].numpy(), rows[place, :, 1:].numpy()
        evaluation: dict[str, Any] = {"clients": alone.scorer.summarise(spread)} if alone.scored else {}
        last = round == job.rounds
        if last and shards.test_examples:
            evaluation["test"] = {
                name: _number(float(np.nanmean(tests[:, at].numpy()))) for at, name in enumerate(names)
            }
        line: Line = {"round": round, "clients": shards.clients, "train_loss": _number(float(np.nanmean(losses)))}
        line |= {"evaluation": evaluation, "seconds": {"elapsed": elapsed * round / job.rounds}}
        _tell(line, last, journal, on_round)


def _tell(line: Line, last: bool, journal: Journal, on_round: OnRound) -> None:
    """Write a line to the journal and hand it to `on_round`; the last one with the reason of the end."""
    if last:
        line["stopped"] = "rounds"
    journal.write(line)
    if on_round is not None:
        on_round(line)


def _number(value: float) -> float | None:
    """Return a value for a line: None in place of NaN and infinities."""
    return value if np.isfinite(value) else None
