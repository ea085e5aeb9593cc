"""A small round before the first one: misfits are refused before a rank starts, in the job's words."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fedmpi import own
from fedmpi.comm import Solo
from fedmpi.evaluation import TASKS, Metric, Scorer, central
from fedmpi.evaluation.vote import SoftVote
from fedmpi.flow import Batch, Client, Engine, Examples, Passage, Refused
from fedmpi.job import JobError
from fedmpi.models import MODELS
from fedmpi.plan.checked import Checked, labelled, reached
from fedmpi.plan.plan import Plan
from fedmpi.plan.replica import Replica
from fedmpi.plan.untouched import untouched
from fedmpi.strategies import STRATEGIES
from fedmpi.training import Sequential, Single
from fedmpi.training.batches import smallest, steps

VALUES = 2**17  # of a batch that is tried: a larger batch is tried whole only where so few of its examples fail
SWITCHED = (
    "the model's attribute {!r} becomes True while a client trains, and every client begins with it as it was; where "
    "others should know, make it a buffer: register_buffer(..., torch.tensor(False))"
)
LEAST, MOST = 8, 128  # examples of it


def try_out(plan: Plan) -> None:
    """Score with every metric and train two batches, the smallest of any client among them.

    It adds to the plan's `notes`.  Raises JobError where model, task, strategy, metrics and examples do not go
    together.  Afterwards the plan's parts and the random generators are as they were.
    """
    labels = plan.shards.labels()
    labelled(plan.task, labels, plan.job.data.shards)
    few = max(LEAST, min(MOST, VALUES // max(1, int(np.prod(plan.shards.shape)))))
    with untouched(plan.model, plan.task, plan.strategy):
        # A copy may be none (a hook that looks at the first module), and a few examples may not be enough: what fails
        # there is tried again on the parts themselves, with all examples of a batch, and that has the last word.
        trial = Trial(_copied(plan), labels, few)
        error = trial.failure()
        if error is not None:
            trial = Trial(plan, labels)
            error = trial.failure()
        if error is None:
            plan.notes += [SWITCHED.format(name) for name in trial.switched]
            return
        if own.outgrew(error):
            raise JobError(f"round 1: a number outgrew its type: {own.line(error)}; take smaller options") from error
        refusal = error if isinstance(error, Refused) else _refusal(plan, trial, error)
        small = trial.least < trial.full and not isinstance(error, Refused)
        if small and Trial(plan, labels, even=True).failure() is None:
            refusal = _smaller(plan, trial, error)
        raise refusal from (error if refusal is not error else error.__cause__)


def _copied(plan: Plan) -> Plan:
    """Return the plan with copies of model, task and strategy, or as it is where they cannot be copied."""
    try:
        model, task, strategy = copy.deepcopy((plan.model, plan.task, plan.strategy))
    except Exception:
        return plan
    return replace(plan, model=model, task=task, strategy=strategy)


class Sample:
    """A shard set with the same few examples for every client."""

    def __init__(self, shards: Any, pair: tuple[Tensor, Tensor]) -> None:
        self.shards, self.pair = shards, pair

    def train(self, client: int) -> tuple[Tensor, Tensor]:
        return self.pair

    def __getattr__(self, name: str) -> Any:
        return getattr(self.shards, name)


class Trial:
    """One client's round on the host, by an engine like the job's, on `few` examples of a batch (None: all).

    `full` and `least` are the sizes of the largest and the smallest batch of any client; with `even`, all are as
    large as the largest.
    """

    def __init__(self, plan: Plan, labels: tuple[int, int] | None, few: int | None = None, even: bool = False) -> None:
        self.plan, self.few, self.even = plan, few, even
        self.task = Checked(plan.task, labels)
        self.sizes = sizes = plan.shards.sizes(np.arange(plan.shards.clients))
        self.largest = largest = int(sizes.max())
        self.full = min(plan.job.local.batch or largest, largest, few or largest)
        self.least, self.smallest = self.full, 0  # the client that has such a batch
        self.taken = self.turn = 0
        enough = np.flatnonzero(sizes >= self.full)
        self.index = int(enough[np.argmin(sizes[enough])])
        self.doing = "is built"
        self.switched: list[str] = []

    def failure(self) -> Exception | None:
        """Run the trial, and return its error; None without one."""
        try:
            self._run()
        except Exception as error:
            return error
        return None

    def _run(self) -> None:
        plan = self.plan
        job = plan.job.model_copy(update={"device": "cpu"})
        plan = replace(plan, job=job, task=self.task)
        torch.set_num_threads(job.threads or Solo().place.threads)
        x, y = plan.shards.train(self.index)
        sample: Examples = Sample(plan.shards, (x[: self.full], y[: self.full]))
        learner = partial(Tried, self, (x, y))

        def engine(**given: Any) -> Engine:
            plan.engine(**given)  # it is made once, so that what it refuses is refused before any rank starts
            return Sequential(plan.course(), **given, keeps=plan.stages.memory, learner=learner)

        replica = Replica.of(plan, examples=sample, engine=engine)
        plan.path(Solo(), replica.layout, replica.flat.device)
        plan.strategy.begin(replica.state, replica.layout, plan.everyone())
        self._play(replica)

    def _play(self, replica: Replica) -> None:
        """Score, train, and score clients' own models."""
        plan, strategy = self.plan, self.plan.strategy
        engine, flat, state = replica.engine, replica.flat, replica.state
        state.round = 1
        for place in range(strategy.models):
            state.planes[place].copy_(flat.values[flat.shared])
        state.counts[:] = flat.whole.received.numpy()
        engine.start()
        engine.receive()
        engine.begin()
        scored = list(self._scored())
        self.doing = "is scored"
        if strategy.common or plan.loop.votes:
            self._score(SoftVote([flat.model], self.task) if plan.loop.votes else flat.model, scored)
        if plan.sampler.asks:
            engine.objective(self.index)
        self.doing = "trains"
        client = np.array([self.index])
        alone = Passage(1, replica.layout, client, self.sizes[client], np.ones(1, np.int64))
        while self.turn < 2 and self.taken < 2:
            for crossing in range(strategy.passes):
                state.crossing = crossing
                for learned in engine.train(np.zeros(1, np.int64), alone):
                    learned.save(replica.memory, alone)
            self.switched = flat.scratch.switched()
            self.turn += 1
        if strategy.personalises and not plan.loop.votes:
            engine.begin()
            engine.personal(self.index)
            self.doing = "is scored"
            self._score(flat.model, scored)

    def batches(self, wanted: int | None) -> list[int]:
        """Return the sizes of at most two batches of a client with so many steps, None for the job's own."""
        local = self.plan.job.local
        wanted = local.steps if wanted is None else wanted
        met = np.where(self.sizes > 0, smallest(self.sizes, local, wanted), self.largest)
        least = int(met.min())
        if least < self.least:
            self.least, self.smallest = least, int(met.argmin())
        count = steps(self.largest, local.batch, local.epochs, wanted, local.remainder)
        both = [self.full, self.full if self.even else min(least, self.full)]
        return (both[::-1] if self.turn else both)[:count]

    def _scored(self) -> Iterator[tuple[Tensor, Tensor, int]]:
        """Yield test examples and a client's held-out ones, each with the size of its batches when scored."""
        plan, shards, batch = self.plan, self.plan.shards, self.plan.job.evaluation.batch
        if shards.test_examples and (plan.strategy.common or plan.loop.votes):
            yield self._some(*shards.test(), batch)
        if plan.job.evaluation.clients and shards.heldout_examples:
            sizes = shards.heldout_sizes(np.arange(shards.clients))
            last = np.where(sizes % batch > 0, sizes % batch, np.minimum(sizes, batch))
            holding = np.flatnonzero(sizes)
            index = holding[np.lexsort((sizes[holding], last[holding]))[0]]
            yield self._some(*shards.heldout(int(index)), batch)

    def _some(self, x: Tensor, y: Tensor, batch: int) -> tuple[Tensor, Tensor, int]:
        """Return a whole batch and the last one, from all over the examples: files are often sorted by label."""
        examples, few = len(y), self.few
        if few is None:
            return x, y, batch
        whole = min(examples, batch, few)
        last = min(examples % batch, whole) if examples > batch else 0
        chosen = torch.from_numpy(np.linspace(0, examples - 1, whole + last).astype(np.int64))
        return x[chosen], y[chosen], whole

    def _score(self, model: nn.Module, scored: list[tuple[Tensor, Tensor, int]]) -> None:
        """Score by every metric, on its few sums; by a person's own with a stream, through it too."""
        plan, ours = self.plan, [metric for task in TASKS.values() for metric in vars(task)["metrics"].values()]
        known = [(name, plan.task.metrics.get(name)) for name in plan.metrics]
        streams = [name for name, one in known if isinstance(one, Metric) and not any(one is metric for metric in ours)]
        for x, y, batch in scored:
            Scorer(self.task, plan.metrics, batch, "cpu").client(model, x, y)
            if streams:
                central(model, self.task, x, y, streams, batch, "cpu")


class Tried(Single):
    """The learner of a trial: it takes the trial's batches, and looks at the first loss before it differentiates it."""

    def __init__(self, trial: Trial, pair: tuple[Tensor, Tensor], *parts: Any) -> None:
        super().__init__(*parts)
        self.trial, self.pair = trial, pair
        self.field = "task" if trial.plan.job.strategy.name in STRATEGIES else "strategy"

    def batches(self, client: Client, steps: int | None = None) -> Iterator[Batch]:
        x, y = self.pair
        for size in self.trial.batches(steps):
            yield self.task.inputs(x[:size]), y[:size]
            self.trial.taken += 1

    def differentiate(self, loss: Tensor) -> list[Tensor]:
        if not self.trial.taken:
            try:
                reached(loss, self.flat, self.field)
            except JobError:
                self.flat.check()  # a parameter that was replaced says more
                raise
        return super().differentiate(loss)


def _refusal(plan: Plan, trial: Trial, error: Exception) -> JobError:
    """Return an error of a model, task or strategy as a refusal, in one line."""
    job, shape = plan.job, tuple(plan.shards.shape)
    asked = job.task.name if job.task else ""
    if asked in TASKS and type(plan.task) is not TASKS[asked]:
        asked = type(plan.task).__name__  # a script's own
    names = {"model.name": job.model.name, "task": asked, "strategy": job.strategy.name}
    known = {"model.name": [*MODELS], "task": [*TASKS], "strategy": [*STRATEGIES]}
    fields = [field for field, name in names.items() if name not in known[field]]
    if own.place(error) is None and not fields:
        return JobError(
            f"model.name: {job.model.name!r} with task {asked!r} does not fit the examples of {job.data.shards}, "
            f"x {shape}: {str(error).splitlines()[0]}"
        )
    field = _owner(plan, error) or (fields or ["model.name"])[0]
    sizes = " and ".join(dict.fromkeys((str(trial.full), str(min(trial.least, trial.full)))))
    doing = f"trains on batches of {sizes}" if trial.doing == "trains" else trial.doing
    return JobError(f"{field}: {names[field]!r} fails where it {doing}, on examples x {shape}: {own.line(error)}")


def _owner(plan: Plan, error: Exception) -> str | None:
    """Return the field of the object with the innermost own code in an error's frames; None without one."""
    for frame, _ in reversed(own.frames(error)):
        owner = frame.f_locals.get("self")
        for field, part in (("task", plan.task), ("strategy", plan.strategy)):
            if type(owner) is type(part):
                return field
        if isinstance(owner, nn.Module):
            return "model.name"
    return None


def _smaller(plan: Plan, trial: Trial, error: Exception) -> JobError:
    """Return the refusal of a failure on small batches alone, with a client of such a batch and the remedy."""
    local, shards, least = plan.job.local, plan.shards, trial.least
    size = int(trial.sizes[trial.smallest])
    who = f"client {shards.id(trial.smallest)!r} holds {size} example{'s' * (size != 1)}"
    fails = f"the model fails, though not on one of {trial.full}: {own.line(error)}"
    if size == least:
        return JobError(
            f"local.batch: {local.batch} given, but {who} in all, and on a batch of {least} {fails}; make the shard "
            f"set without such clients, or take a model that can (GroupNorm in place of BatchNorm)"
        )
    return JobError(
        f"local.batch: {local.batch} given, but {who}, which leaves a last batch of {least}, and on that {fails}; let "
        f'local.remainder be "drop" or "merge", or take another batch'
    )
