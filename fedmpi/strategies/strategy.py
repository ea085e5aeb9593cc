"""A strategy's methods, most of them short and seldom overridden, and the server's optimiser."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from fedmpi.flow import Client, Layout, Learner, Rule, State, Task
from fedmpi.job import Count, Job, JobError, NonNegative, Positive, nearest
from fedmpi.optim import Maker, Optimizer

__all__ = [
    "Count", "Decay", "NonNegative", "Positive", "Server", "Strategy", "mean_loss", "own_steps", "plain_server",
    "plain_steps", "sound",
]  # fmt: skip

Decay = Annotated[float, Field(ge=0, lt=1)]  # the part of a running mean that stays


class Server:
    """The server's step: an optimiser of torch's on the mean update's opposite as gradient (Reddi et al. 2021).

    It lives at home alone, over the first plane of the state.  Floating buffers behind the trained values are averaged:
    an adaptive optimiser would make a variance negative.  `schedule` gives the factor of `lr` in a round.
    """

    def __init__(self, optimizer: Maker, lr: float, schedule: Callable[[int], float] = lambda round: 1.0) -> None:
        self.make, self.base, self.schedule = optimizer, lr, schedule
        self.optimizer: Optimizer | None = None

    def begin(self, state: State, trained: slice) -> None:
        """Take hold of the state's first plane."""
        self.now, self.values, self.trained = state, state.planes[0], trained
        self.optimizer = self.make(self.values[trained], self.base)

    @property
    def lr(self) -> float:
        """This round's learning rate."""
        return self.base * self.schedule(self.now.round)

    def average(self, mean: Tensor) -> Tensor:
        """Average the buffers, and return the rest of the mean update: its view `(trained,)`."""
        self.values[self.trained.stop :].add_(mean[self.trained.stop :])
        return mean[self.trained]

    def step(self, mean: Tensor) -> None:
        """Move the model by the mean update `(size,)`, whose memory is used up."""
        assert self.optimizer is not None
        change = self.average(mean)
        if self.optimizer.plain:
            self.values[self.trained].add_(change, alpha=self.lr)
        else:
            self.optimizer.pace(self.lr)
            self.optimizer.step(change.neg_())

    def state(self) -> dict[str, Tensor]:
        return {} if self.optimizer is None else self.optimizer.state()

    def load(self, state: Mapping[str, Tensor]) -> None:
        assert self.optimizer is not None
        self.optimizer.load(state)


class Strategy:
    """Federated averaging, unless a method says otherwise; `up` and `sums` name each plane's and sum's weighting.

    A weighting is "job" (as `aggregation.weights` says), "examples", "uniform" or "none" (added, never divided).
    `memory` names the values that a client keeps from round to round: "model" (a model of its own, which begins as the
    run's first), "trained" (a vector as long as the trained values, from 0) or "scalar" (from 0).  A rule may use
    `Client`, and the engine as `Learner`, both in `fedmpi.flow`.  Home alone has `state` and `kept`.

    An overridden method sets the trait that goes with it, unless the class sets it itself: with a `correct` of its own
    a strategy `corrects`, with a `survey` it has two passes, its `result` finds planes of zeros, with a `personal` or
    `stays` it personalises, and with a `stays` no model is common.
    """

    down: int = 1  # planes that a broadcast carries
    up: tuple[str, ...] = ("job",)  # planes that an update carries
    sums: Mapping[str, str] = {}  # the strategy's scalars beside them
    memory: Mapping[str, str] = {}
    passes: ClassVar[int] = 1  # crossings a round: all but the last are surveys
    corrects: ClassVar[bool] = False  # its local steps are corrected
    fills: ClassVar[bool] = False  # its result finds its planes as zeros, so that it may write but a part of them
    common: ClassVar[bool] = True  # the model that travels is one to use as it is
    personalises: ClassVar[bool] = False  # a client has a model of its own
    models: int = 1  # planes that hold a model each, and begin as one

    def __init_subclass__(cls, **others: Any) -> None:
        super().__init_subclass__(**others)
        for method, trait, value in FOLLOWS:
            told = any(trait in vars(kind) for kind in cls.__mro__ if kind is not Strategy)
            if not told and getattr(cls, method) is not getattr(Strategy, method):
                setattr(cls, trait, value)

    def __init__(self, server: Server) -> None:
        self.server = server
        self.kept: dict[str, Tensor] = {}

    @property
    def rule(self) -> Rule | None:
        """The correction of each step in the job's local loop; None leaves the steps as they are, which is quicker."""
        return self.correct if self.corrects else None

    def check(self, job: Job) -> None:
        """Raise JobError where the rest of the job cannot go with this strategy."""

    def settle(self, job: Job) -> Job:
        """Return the job with the fields that this strategy fixes, for the run's own copy."""
        return job

    def stays(self, model: nn.Module) -> Callable[[str], bool]:
        """Return a test of a model's tensor names: True for a tensor that stays with each client."""
        return lambda name: False

    # At a client.

    def survey(self, client: Client) -> Mapping[str, float]:
        """Write the client's planes at the received model, in a crossing before the last; return its sums."""
        return {}

    def prepare(self, client: Client) -> None:
        """Run before a client's first step, at the received model."""

    def learn(self, client: Client, learner: Learner) -> None:
        """Train the client: the job's loop of steps, each corrected by `rule`."""
        learner.train(client, self.rule)

    def loss(self, task: Task, model: nn.Module, inputs: Tensor, y: Tensor, client: Client) -> Tensor:
        """Return a batch's loss, a scalar: the task's."""
        return task.loss(model(inputs), y)

    def correct(self, grads: Tensor, values: Tensor, received: Tensor, client: Client) -> None:
        """Change a step's gradient `(..., trained)` in place."""

    def result(self, client: Client) -> Mapping[str, float]:
        """Write the client's planes; return its sums, 0 where left out.  The plane: trained values minus received."""
        client.change(client.planes[0])
        return {}

    def personal(self, client: Client, learner: Learner) -> None:
        """Turn the received model and the private values into the client's own model, in place."""

    # At home.

    def begin(self, state: State, layout: Layout, everyone: Mapping[str, float]) -> None:
        """Take hold of the state; `everyone` is the total over all clients, by weighting ("uniform": each 1)."""
        self.layout, self.everyone = layout, everyone
        self.server.begin(state, layout.trained)

    def step(self, state: State, mean: Tensor, sums: Mapping[str, float]) -> None:
        """Move `state` by the mean planes `(up, size)`, whose memory is used up."""
        self.server.step(mean[0])

    def share(self, plane: int, sums: Mapping[str, float]) -> float:
        """Return the part of everyone in this round, in a plane's own weighting."""
        weighting = self.layout.weights[plane]
        return sums["weight" if weighting == "examples" else "clients"] / self.everyone[weighting]

    def zeros(self, state: State) -> Tensor:
        """Return a vector `(trained,)` of zeros on the server's device."""
        return torch.zeros_like(state.planes[0, self.layout.trained])

    def state(self) -> dict[str, Tensor]:
        """Return home's tensors for a checkpoint, by name."""
        return {**{f"server.{name}": value for name, value in self.server.state().items()}, **self.kept}

    def load(self, state: Mapping[str, Tensor]) -> None:
        own = {name: value for name, value in state.items() if name in self.kept}
        for name, value in own.items():
            self.kept[name].copy_(value)
        self.server.load({name.removeprefix("server."): value for name, value in state.items() if name not in own})


FOLLOWS = (  # a method overridden, and the trait that nobody should have to set beside it
    ("correct", "corrects", True),
    ("survey", "passes", 2),
    ("result", "fills", True),
    ("personal", "personalises", True),
    ("stays", "personalises", True),
    ("stays", "common", False),
)
WEIGHTINGS = ("job", "examples", "uniform", "none")
MEMORIES = ("model", "trained", "scalar")


def sound(strategy: Strategy, name: str) -> Strategy:
    """Return the strategy `name` of a job; JobError names a contradiction in its traits."""
    kind = type(strategy)
    up: object = strategy.up
    if not isinstance(up, tuple) or not up:
        raise JobError(f"strategy: {name} has up = {up!r}; it should be a tuple of weightings, as in ('job',)")
    words: list[tuple[str, str, tuple[str, ...]]] = [("up", word, WEIGHTINGS) for word in strategy.up]
    words += [(f"sums[{key!r}]", word, WEIGHTINGS) for key, word in strategy.sums.items()]
    words += [(f"memory[{key!r}]", word, MEMORIES) for key, word in strategy.memory.items()]
    for where, word, known in words:
        if word not in known:
            raise JobError(
                f"strategy: {name} has {where} = {word!r}; there are {', '.join(known)}{nearest(word, known)}"
            )
    for trait in ("down", "passes", "models"):
        number = getattr(strategy, trait)
        if not isinstance(number, int) or number < 1:
            raise JobError(f"strategy: {name} has {trait} = {number!r}; it should be a number of at least 1")
    if strategy.models > strategy.down:
        raise JobError(f"strategy: {name} has {strategy.models} models and {strategy.down} planes down for them")
    for method, trait, needed in (
        ("survey", "passes", strategy.passes > 1),
        ("correct", "corrects", strategy.corrects),
    ):
        own = getattr(kind, method) is not getattr(Strategy, method) or method in vars(strategy)
        if needed != own:
            told = getattr(strategy, trait)
            raise JobError(
                f"strategy: {name} has {trait} = {told!r}, but its {method} "
                f"{'would never be called' if own else 'is that of plain averaging, which does nothing'}"
            )
    return strategy


def mean_loss(losses: Sequence[tuple[Tensor, int]]) -> float:
    """Return the mean loss over examples, from batches' mean losses with their numbers of examples."""
    total = torch.stack([loss.double() * count for loss, count in losses]).sum()
    return float(total) / sum(count for _, count in losses)


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
        told = f"{name} with {', '.join(sorted(options))}" if options else name
        raise JobError(
            f"local.optimizer: {told} given, but {job.strategy.name} counts on plain gradient steps; use sgd"
            f"{' (with momentum, if you like)' if momentum else ' alone'}, and local.l2 for a penalty"
        )
