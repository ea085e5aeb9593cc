"""What each rank of a launch measures: the floor, whole rounds, memory or collectives."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from fedmpi import rounds
from fedmpi.bench.floor import Floor
from fedmpi.bench.machine import fingerprint
from fedmpi.bench.memory import Peak, pss
from fedmpi.comm import wrap
from fedmpi.flat import FlatModel
from fedmpi.flow import Comm
from fedmpi.job import read
from fedmpi.plan import Plan, assemble
from fedmpi.rounds.loops import LOOPS

ANSWER = "fedmpi-bench "  # begins the line of home's answer
REPEATS = 12  # of each collective


def answer(spec: dict[str, Any], world: Any) -> None:
    """Measure what `spec` asks for on every rank of `world`, an mpi4py communicator or None; home prints it as JSON."""
    torch.set_num_threads(1)
    values = PARTS[spec["part"]](spec, world)
    if world is None or world.rank == 0:
        print(ANSWER + json.dumps(values), flush=True)


def _floor(spec: dict[str, Any], world: Any) -> dict[str, Any]:
    """Seconds of the floor's rounds, the first left out: every rank trains."""
    plan = _plan(spec)
    local, shards, task = plan.job.local, plan.shards, plan.task
    rank, size = (world.rank, world.size) if world else (0, 1)
    random = [np.random.default_rng(round) for round in range(spec["rounds"] + 1)]
    cohorts = [np.sort(one.choice(shards.clients, plan.cohort, replace=False)) for one in random]
    inputs = {}
    for client in {int(client) for cohort in cohorts for client in cohort[rank::size]}:
        x, y = shards.train(client)
        inputs[client] = task.inputs(x).clone(), y.clone()
    sizes = shards.sizes(np.arange(shards.clients))
    steps = None if local.epochs else local.steps
    floor = Floor(world, inputs, sizes, plan.model, task.loss, local.lr, local.batch, local.epochs or 1, steps)
    times = []
    for round, cohort in enumerate(cohorts):
        torch.manual_seed(round)
        if world:
            world.Barrier()
        began = time.perf_counter()
        floor.round(cohort)
        if world:
            world.Barrier()
        times.append(time.perf_counter() - began)
    return {"seconds": times[1:]}


def _round(spec: dict[str, Any], world: Any) -> dict[str, Any]:
    """Seconds of whole rounds, from one line of the journal to the next, and of the start up to the first."""
    ends: list[float] = []
    lines: list[dict[str, Any]] = []

    def hear(line: dict[str, Any]) -> None:
        ends.append(time.time())
        lines.append(line)

    rounds.train(_job(spec), world, out=spec["out"], overwrite=spec["out"] is not None, on_round=hear)
    if not lines:
        return {}
    # The last line waits for the final score: the others are a round apart.
    apart = [later - one for one, later in pairwise(ends[:-1])]
    return {"seconds": apart, "first": ends[0] - spec["began"], "bytes": lines[0]["bytes"]}


def _memory(spec: dict[str, Any], world: Any) -> dict[str, Any]:
    """MiB of each rank at most, beyond what its imports take, and the MiB of the model."""
    plan = _plan(spec)
    flat = FlatModel(plan.model, plan.strategy.stays(plan.model), plan.dtype)
    size = flat.values.numel() * flat.values.itemsize / 2**20
    del flat, plan
    comm = wrap(world)
    _warm()
    before = pss()
    with Peak() as peak:
        rounds.train(_job(spec), comm, out=spec["out"], overwrite=spec["out"] is not None)
    everyone = comm.gather(torch.tensor([peak.most - before], dtype=torch.float64))
    comm.settle(None)
    return {"above": everyone[:, 0].tolist(), "model": size}


def _warm() -> None:
    """Wake the libraries that any training wakes."""
    layer = torch.nn.Linear(4, 4)
    layer(torch.ones(2, 4)).sum().backward()


def _collectives(spec: dict[str, Any], world: Any) -> dict[str, Any]:
    """Seconds of a broadcast from home and of a sum to it, by bytes; the time of an agreement is taken off."""
    comm = wrap(world)
    empty = _timed(comm, lambda: None)
    found = []
    for size in spec["sizes"]:
        vector = comm.buffer(size // 4, torch.float32)
        landed = [torch.empty_like(vector)] if comm.is_home else None
        seconds = {
            "broadcast": _timed(comm, partial(comm.broadcast, vector)),
            "reduce": _timed(comm, partial(comm.reduce, vector, into=landed)),
        }
        found.append({"bytes": size, **{name: max(value - empty, 1e-9) for name, value in seconds.items()}})
    hosts = _hosts(comm)
    comm.settle(None)
    return {"collectives": found, "machine": fingerprint(comm.library), "hosts": hosts}


def _timed(comm: Comm, collective: Callable[[], None]) -> float:
    """Return the median seconds from when all ranks have come to a collective until it is through on all."""
    times = []
    for _ in range(REPEATS):
        comm.agree(True)
        began = time.perf_counter()
        collective()
        comm.agree(True)
        times.append(time.perf_counter() - began)
    return statistics.median(times[2:])


def _hosts(comm: Comm) -> int:
    """Return the number of nodes under the ranks."""
    first = torch.tensor([float(comm.place.local_rank == 0)], dtype=torch.float64)
    return int(comm.gather(first).sum())


def _plan(spec: dict[str, Any]) -> Plan:
    return assemble(_job(spec), loops=LOOPS, try_out=False)


def _job(spec: dict[str, Any]) -> Any:
    overrides: Sequence[str] = spec["set"]
    return read(spec["job"], overrides)


PARTS: dict[str, Callable[[dict[str, Any], Any], dict[str, Any]]] = {
    "floor": _floor,
    "round": _round,
    "memory": _memory,
    "collectives": _collectives,
}
