"""The job file: its frame is validated here, each component's own table by the component it names."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt

from fedmpi.choose import Component, Frame, JobError, choose, explain, find, nearest, options
from fedmpi.flow import Where

__all__ = [
    "Aggregation", "Checkpoints", "Cohort", "Component", "Data", "Evaluation", "Job", "JobError", "Local", "Server",
    "Stop", "choose", "explain", "find", "nearest", "options", "read", "validate",
]  # fmt: skip


def _named(default: str | None = None) -> BeforeValidator:
    """Read a bare name as a table; a table of options alone is about the default component."""

    def read(value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        return {"name": default, **value} if default is not None and isinstance(value, dict) else value

    return BeforeValidator(read)


def _listed(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


Named = Annotated[Component, _named()]
Optimizer = Annotated[Component, _named("sgd")]
Names = Annotated[tuple[str, ...], BeforeValidator(_listed)]
Pipeline = Annotated[tuple[Named, ...], BeforeValidator(_listed)]
Fraction = Annotated[float, Field(gt=0, le=1)]


class Data(Frame):
    shards: str


class Cohort(Frame):
    """Clients a round: a number, or a fraction of all; all of them where neither is given.  `sampler`: who they are."""

    size: PositiveInt | None = None
    fraction: Fraction | None = None
    sampler: Annotated[Component, _named("uniform")] = Component(name="uniform")

    def of(self, clients: int) -> int:
        """How many of `clients` take part in a round."""
        if self.fraction is not None:
            return max(1, round(self.fraction * clients))
        return clients if self.size is None else self.size


class Local(Frame):
    """How a client learns: passes over its examples (`epochs`) or a number of steps; `batch` 0 takes all at once.

    `remainder`: what is left of an epoch behind the last whole batch is a smaller batch ("keep"), is left out of that
    epoch ("drop") or joins the batch before it ("merge").  A client with fewer examples than a batch has one batch, of
    all that it holds, whatever this says.
    """

    optimizer: Optimizer = Component(name="sgd")
    lr: PositiveFloat = 0.1
    batch: Annotated[int, Field(ge=0)] = 10
    remainder: Literal["keep", "drop", "merge"] = "keep"
    epochs: PositiveInt | None = None
    steps: PositiveInt | None = None
    l1: NonNegativeFloat = 0.0
    l2: NonNegativeFloat = 0.0
    clip: PositiveFloat | None = None  # L2 norm of a step's gradient
    schedule: Annotated[Component, _named("constant")] = Component(name="constant")  # of the learning rate, over rounds


class Aggregation(Frame):
    weights: Literal["examples", "uniform"] = "examples"
    cap: PositiveInt | None = None  # w = min(examples / cap, 1); the largest client where not given
    stages: Pipeline = ()


class Server(Frame):
    optimizer: Optimizer = Component(name="sgd")
    lr: PositiveFloat = 1.0
    schedule: Annotated[Component, _named("constant")] = Component(name="constant")  # of the learning rate, over rounds
    trains: bool = False


class Evaluation(Frame):
    """`every` rounds, and the final model always; 0 scores the final model alone.  No `metrics`: the task's own."""

    every: Annotated[int, Field(ge=0)] = 1
    metrics: Names | None = None
    batch: PositiveInt = 1024
    clients: bool = True  # clients score the received model on their held-out examples


class Stop(BaseModel):
    """When to end before `rounds`: a target by its metric's name, `patience` in evaluations, wall `seconds`."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True, allow_inf_nan=False)
    patience: PositiveInt | None = None
    metric: str | None = None  # what patience and the best checkpoint look at; the first metric where not given
    seconds: PositiveFloat | None = None

    @property
    def targets(self) -> dict[str, float]:
        return dict(self.model_extra or {})


class Checkpoints(Frame):
    """Every how many rounds (0: only at a stop), and how many are kept besides the best."""

    every: Annotated[int, Field(ge=0)] = 1
    keep: PositiveInt = 2


class Job(Frame):
    """Everything a run needs."""

    name: Annotated[str, Field(min_length=1)] = "run"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    rounds: PositiveInt
    loop: Annotated[Component, _named("synchronous")] = Component(name="synchronous")  # what a round is
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: PositiveInt | None = None  # compute threads of a rank; its share of the node's cores where not given
    data: Data
    cohort: Cohort = Cohort()
    model: Named
    task: Named | None = None  # what the shard set says where not given
    local: Local = Local()
    strategy: Annotated[Component, _named("fedavg")] = Component(name="fedavg")
    aggregation: Aggregation = Aggregation()
    server: Server = Server()
    evaluation: Evaluation = Evaluation()
    stop: Stop = Stop()
    checkpoint: Checkpoints = Checkpoints()
    run: dict[str, Any] = Field(
        default={}
    )  # where a run ran: in the copy that its folder keeps, and no part of what it is

    @pydantic.model_validator(mode="after")
    def _agrees(self) -> Job:
        if self.cohort.size is not None and self.cohort.fraction is not None:
            raise JobError("cohort: give size (clients) or fraction (of all clients), not both")
        if self.local.epochs is not None and self.local.steps is not None:
            raise JobError("local: give epochs (passes over a client's examples) or steps, not both")
        return self


def read(source: Where | Mapping[str, Any], overrides: Sequence[str] = ()) -> Job:
    """The job in a TOML file or a dict of the same shape, with `--set` overrides (`"local.lr=0.1"`) laid over it.

    Raises JobError with one line per wrong field.
    """
    table = dict(source) if isinstance(source, Mapping) else _load(Path(source))
    for text in overrides:
        _override(table, text)
    return validate(table)


def validate(table: Mapping[str, Any]) -> Job:
    """The job of a table, its frame checked; JobError names each wrong field, what was given and what is allowed."""
    try:
        return Job.model_validate(table)
    except pydantic.ValidationError as error:
        raise JobError(explain(error, Job)) from None


def _load(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise JobError(f"{path}: there is no such job file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise JobError(f"{path}: cannot be read as a job file: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise JobError(f"{path}: is not TOML: {error}") from None


def _override(table: dict[str, Any], text: str) -> None:
    field, equals, value = text.partition("=")
    keys = field.strip().split(".")
    if not equals or not all(keys) or keys[0] == "run":
        raise JobError(f"--set {text!r}: write FIELD=VALUE, as in --set local.lr=0.1")
    try:
        parsed = tomllib.loads(f"value = {value.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value.strip()  # a bare word is a string, so that a shell needs no second pair of quotes
    for index, key in enumerate(keys[:-1]):
        below = table.get(key, {})
        if isinstance(below, str):  # `strategy = "fedavg"` and `--set strategy.mu=1`
            below = {"name": below}
        if not isinstance(below, Mapping):
            raise JobError(f"--set {text!r}: {'.'.join(keys[: index + 1])} is {below!r}, not a table")
        table[key] = dict(below)
        table = table[key]
    table[keys[-1]] = parsed
