"""The methods and traits of a strategy, most of them short and seldom overridden."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from fedmpi.flow import Client, Layout, Learner, Rule, State, Task
from fedmpi.job import Job
from fedmpi.strategies.refusals import one_gradient
from fedmpi.strategies.server_step import ServerStep

__all__ = ["Decay", "ServerStep", "Strategy", "mean_loss"]

Decay = Annotated[float, Field(ge=0, lt=1)]  # the part of a running mean that stays


class Strategy:
    """Federated averaging, unless a method says otherwise; `up` and `sums` name each plane's and sum's weighting.

    A weighting is "job" (as `aggregation.weights` says), "examples", "uniform" or "none" (added, never divided).
    `memory` names the values kept by a client from round to round: "model" (a model of its own, which begins as the
    run's first), "trained" (a vector as long as the trained values, from 0) or "scalar" (from 0).  `notes` names, by
    the same kinds, the tensors for a client's own numbers from `prepare` to `result`, 0 as it begins (a scalar in
    float64).  No strategy keeps them on itself: another client may learn beside.  A rule may use `Client`, and the
    engine as `Learner`, both in `fedmpi.flow`.  Home alone has `state` and `vectors`, the server's own from round to
    round, by name.

    A `batched` strategy may learn for K clients at once, in rows: `Client` says of what shape.

    An overridden method sets the trait that goes with it, unless the class sets it itself: with a `correct` of its own
    a strategy `corrects`, with a `survey` it has two passes, its `result` finds planes of zeros, with a `personal` or
    `stays` it personalises, and with a `stays` no model is common.  With a `learn`, `correct` or `loss` of its own it
    is not `batched` unless its class says so: only its author can know that it is written on the last axis.  With a
    `loss` of its own its steps are recorded where it is batched, or where its class says that it `records`.
    """

    down: int = 1  # planes that a broadcast carries
    up: tuple[str, ...] = ("job",)  # planes that an update carries
    sums: Mapping[str, str] = {}  # the strategy's scalars beside them
    memory: Mapping[str, str] = {}
    notes: Mapping[str, str] = {}
    passes: ClassVar[int] = 1  # crossings a round: all but the last are surveys
    corrects: ClassVar[bool] = False  # its local steps are corrected
    fills: ClassVar[bool] = False  # its result finds its planes as zeros, so that it may write but a part of them
    common: ClassVar[bool] = True  # the model that travels is one to use as it is
    personalises: ClassVar[bool] = False  # a client has a model of its own
    whole_client: ClassVar[bool] = False  # it learns from all of a client's examples at once, one step a round
    whole_update: ClassVar[bool] = False  # home counts on updates as they were sent: no stage may bound them
    alone: ClassVar[bool] = False  # each client trains a model that it keeps as its memory "own", and sends nothing
    batched: ClassVar[bool] = True  # its `learn`, `correct` and `loss` may stand for several clients
    records: ClassVar[bool] = True  # its `loss` is made of tensors alone, so that a step of it may be recorded
    models: int = 1  # planes that hold a model each, and begin as one

    def __init_subclass__(cls, **others: Any) -> None:
        super().__init_subclass__(**others)
        if "batched" not in vars(cls) and any(method in vars(cls) for method in ROWS):
            cls.batched = False
        if "records" not in vars(cls) and "loss" in vars(cls):
            cls.records = vars(cls).get("batched", False)
        for method, trait, value in FOLLOWS:
            own = any(trait in vars(kind) for kind in cls.__mro__ if kind is not Strategy)
            if not own and getattr(cls, method) is not getattr(Strategy, method):
                setattr(cls, trait, value)

    def __init__(self, server: ServerStep) -> None:
        self.server = server
        self.vectors: dict[str, Tensor] = {}

    @property
    def kept(self) -> dict[str, Tensor]:
        """Return `vectors`, by the name of earlier versions."""
        return self.vectors

    @kept.setter
    def kept(self, vectors: dict[str, Tensor]) -> None:
        self.vectors = vectors

    @property
    def rule(self) -> Rule | None:
        """Return the correction of each step in the job's local loop; None (quicker) leaves the steps alone."""
        return self.correct if self.corrects else None

    @property
    def plain_loop(self) -> bool:
        """Return whether its learning is the job's loop, and nothing else."""
        return type(self).learn is Strategy.learn

    @property
    def plain_loss(self) -> bool:
        """Return whether its loss is the task's."""
        return type(self).loss is Strategy.loss

    @property
    def weights(self) -> tuple[str, ...]:
        """Return the values of `aggregation.weights` fixed by its planes; none where the job may choose."""
        own = ("uniform" if weighting == "none" else weighting for weighting in self.up if weighting != "job")
        return tuple(dict.fromkeys(own))

    @property
    def local_rule(self) -> bool:
        """Return whether a local rule is all of this strategy: the rest is plain averaging."""
        own = any(getattr(type(self), name) is not getattr(Strategy, name) for name in ("step", "stays"))
        return self.passes == self.down == len(self.up) == 1 and not (own or self.memory or self.sums)

    def check(self, job: Job) -> Job:
        """Return the job with the fields that this strategy fixes; JobError where the rest cannot go with it."""
        return one_gradient(job) if self.whole_client else job

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

    def moves(self, sums: Mapping[str, float]) -> bool:
        """Return whether a round of these sums moves the model: one to which nobody came does not."""
        return sums["clients"] > 0

    def share(self, plane: int, sums: Mapping[str, float]) -> float:
        """Return the part of everyone in this round, in a plane's own weighting."""
        weighting = self.layout.weights[plane]
        return sums["weight" if weighting == "examples" else "clients"] / self.everyone[weighting]

    def zeros(self, state: State) -> Tensor:
        """Return a vector `(trained,)` of zeros on the server's device."""
        return torch.zeros_like(state.planes[0, self.layout.trained])

    def state(self) -> dict[str, Tensor]:
        """Return home's tensors for a checkpoint, by name."""
        return {**{f"server.{name}": value for name, value in self.server.state().items()}, **self.vectors}

    def load(self, state: Mapping[str, Tensor]) -> None:
        own = {name: value for name, value in state.items() if name in self.vectors}
        for name, value in own.items():
            self.vectors[name].copy_(value)
        self.server.load({name.removeprefix("server."): value for name, value in state.items() if name not in own})


FOLLOWS = (  # a method overridden, and the trait that nobody should have to set beside it
    ("correct", "corrects", True),
    ("survey", "passes", 2),
    ("result", "fills", True),
    ("personal", "personalises", True),
    ("stays", "personalises", True),
    ("stays", "common", False),
)


ROWS = ("learn", "correct", "loss")  # methods that see several clients at once, where they may


def mean_loss(losses: Sequence[tuple[Tensor, Tensor | int]]) -> Any:
    """Return the mean loss over examples, from batches' mean losses with their targets, or the numbers of these.

    A float; of K clients, with losses `(K,)` and targets `(K, N, ...)`, an array `(K,)`.
    """
    counts = [of.shape[loss.dim()] if isinstance(of, Tensor) else of for loss, of in losses]
    total = torch.stack([loss.double() * count for (loss, _), count in zip(losses, counts, strict=True)]).sum(0)
    mean = total.cpu().numpy() / sum(counts)
    return mean if mean.ndim else float(mean)
