"""The frame of a job: its tables and their fields; components check their own options."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pydantic
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from fedmpi.job.component import Component, Named, named
from fedmpi.job.kinds import Count, Every, Folder, Fraction, Listed, Names, NonNegative, Positive
from fedmpi.job.words import JobError

Optimizer = Annotated[Component, named("sgd")]
Schedule = Annotated[Component, named("constant")]  # of a learning rate, over rounds
Engine = Annotated[Component, named("sequential")]
Path = Annotated[Component, named("reduce")]


class Frame(BaseModel):
    """A table of a job: other fields than its own, other types and infinite numbers are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Data(Frame):
    """The folder of the shard set."""

    shards: str


class Cohort(Frame):
    """The clients of a round, drawn by `sampler`: a number (`size`), a `fraction` of all, or all where not given."""

    size: Count | None = None
    fraction: Fraction | None = None
    sampler: Annotated[Component, named("uniform")] = Component(name="uniform")

    def of(self, clients: int) -> int:
        """Return the size of a cohort drawn from so many `clients`."""
        if self.fraction is not None:
            return max(1, round(self.fraction * clients))
        return clients if self.size is None else self.size


def _file(init: object) -> object:
    """Return a path or None as it is; ValueError for anything else."""
    if not isinstance(init, str | None):
        raise ValueError("should be the path of a safetensors file")
    return init


class Model(Component):
    """The model: a component trained in `dtype`, with its first values from the safetensors file `init`, if given."""

    dtype: Literal["float32", "float64"] | None = None  # float32 where not given
    init: Annotated[str | None, BeforeValidator(_file)] = None


class Local(Frame):
    """A client's training: passes over its examples (`epochs`) or a number of `steps`; `batch` 0 takes all at once.

    `remainder`: the examples of an epoch behind its last whole batch are a smaller batch ("keep"), are left out of this
    epoch ("drop") or join the batch before them ("merge").  A client with fewer examples than a batch has one batch, of
    all its examples, in every case.  `engine` is the way of clients' training on a rank.
    """

    optimizer: Optimizer = Component(name="sgd")
    lr: Positive = 0.1
    batch: Every = 10
    remainder: Literal["keep", "drop", "merge"] = "keep"
    epochs: Count | None = None
    steps: Count | None = None
    l1: NonNegative = 0.0
    l2: NonNegative = 0.0
    clip: Positive | None = None  # L2 norm of a step's gradient
    schedule: Schedule = Component(name="constant")
    engine: Engine = Component(name="auto")


class Aggregation(Frame):
    """The weights of clients, the `path` of their updates, and its `stages`, in their order.

    A client weighs min(examples / `cap`, 1), where the cap is the size of the largest client if not given; with
    "uniform" `weights` all clients weigh the same.
    """

    weights: Literal["examples", "uniform"] = "examples"
    cap: Annotated[int, Field(gt=0, lt=2**53)] | None = None
    stages: Annotated[tuple[Named, ...], Listed] = ()
    path: Path = Component(name="reduce")


class Server(Frame):
    """The server's step along the clients' mean update; with `trains` its rank serves clients too."""

    optimizer: Optimizer = Component(name="sgd")
    lr: Positive = 1.0
    schedule: Schedule = Component(name="constant")
    trains: bool = False


class Evaluation(Frame):
    """The scoring of models: `every` so many rounds, and the final one always; 0 scores the final one alone.

    Without `metrics` these are the task's own.
    """

    every: Every = 1
    metrics: Names | None = None
    batch: Count = 1024
    clients: bool = True  # clients score the received model on their held-out examples


class Stop(BaseModel):
    """The end of a run before its `rounds`: a target by its metric's name, `patience` in evaluations, `seconds`."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True, allow_inf_nan=False)
    patience: Count | None = None
    metric: str | None = None  # for patience and the best checkpoint; the first metric where not given
    seconds: Positive | None = None  # of wall time

    @property
    def targets(self) -> dict[str, float]:
        """The scores to reach, by their metrics' names."""
        return dict(self.model_extra or {})


class Checkpointing(Frame):
    """The writing of checkpoints: `every` so many rounds (0: only at a stop); the last `keep` and the best are kept."""

    every: Every = 1
    keep: Count = 2


class Place(Frame):
    """The ranks' places: how clients are dealt to them, and whether they keep to cores of their own.

    `deal`: by the clients' "work" alone, or by the ranks' "measured" pace too, as "auto" does where sums have the same
    bits in any order.  `bind`: "auto" binds ranks that fit their node's cores to some of one memory domain, in
    a batch job whose launcher has not done so; "on" does it anywhere, "off" nowhere.
    """

    deal: Literal["auto", "work", "measured"] = "auto"
    bind: Literal["auto", "on", "off"] = "auto"


class Job(Frame):
    """A job: everything a run needs."""

    name: Folder = "run"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    rounds: Count
    loop: Annotated[Component, named("synchronous")] = Component(name="synchronous")  # the kind of round
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Annotated[int, Field(gt=0, le=1024)] | None = None  # of a rank; its share of the node's cores if not given
    data: Data
    cohort: Cohort = Cohort()
    model: Annotated[Model, named()]
    task: Named | None = None  # the shard set's where not given
    local: Local = Local()
    strategy: Annotated[Component, named("fedavg")] = Component(name="fedavg")
    aggregation: Aggregation = Aggregation()
    server: Server = Server()
    evaluation: Evaluation = Evaluation()
    stop: Stop = Stop()
    checkpoint: Checkpointing = Checkpointing()
    place: Place = Place()
    run: dict[str, Any] = Field(default={})  # where it ran: in the copy in a run's folder, and no part of the job

    @pydantic.model_validator(mode="after")
    def _agrees(self) -> Job:
        """Refuse two fields of which a job may give one."""
        if self.cohort.size is not None and self.cohort.fraction is not None:
            raise JobError("cohort: give size (clients) or fraction (of all clients), not both")
        if self.local.epochs is not None and self.local.steps is not None:
            raise JobError("local: give epochs (passes over a client's examples) or steps, not both")
        return self
