"""The job file: its frame is validated here, each component's own table by the component it names."""

from __future__ import annotations

import errno
import os
import re
import stat
import tomllib
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from fedmpi.choose import (
    Component,
    Frame,
    JobError,
    because,
    choose,
    explain,
    find,
    nearest,
    options,
    shown,
)
from fedmpi.flow import Where

__all__ = [
    "LARGE", "Aggregation", "Checkpoints", "Cohort", "Component", "Count", "Data", "Evaluation", "Job", "JobError",
    "Local", "NonNegative", "Positive", "Server", "Stop", "because", "choose", "explain", "find", "nearest", "options",
    "read", "regular", "shown", "validate",
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
Count = Annotated[int, Field(gt=0, lt=2**31)]  # products of two still fit what numpy counts in
LARGE = 1e30  # times another option it is still a float32
Positive = Annotated[float, Field(gt=0, le=LARGE)]
NonNegative = Annotated[float, Field(ge=0, le=LARGE)]
Every = Annotated[int, Field(ge=0, lt=2**31)]


def _folder(name: str) -> str:
    """A job's name is its run's folder under runs/."""
    lines = any(unicodedata.category(letter) in ("Cc", "Zl", "Zp") for letter in name)
    if not name.strip() or name in (".", "..") or "/" in name or lines or len(name.encode()) > 200:
        raise ValueError("should be a folder's name: not blank, no slash, no line break, at most 200 bytes")
    return name


class Data(Frame):
    shards: str


class Cohort(Frame):
    """Clients a round: a number, or a fraction of all; all of them where neither is given.  `sampler`: who they are."""

    size: Count | None = None
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
    lr: Positive = 0.1
    batch: Every = 10
    remainder: Literal["keep", "drop", "merge"] = "keep"
    epochs: Count | None = None
    steps: Count | None = None
    l1: NonNegative = 0.0
    l2: NonNegative = 0.0
    clip: Positive | None = None  # L2 norm of a step's gradient
    schedule: Annotated[Component, _named("constant")] = Component(name="constant")  # of the learning rate, over rounds


class Aggregation(Frame):
    weights: Literal["examples", "uniform"] = "examples"
    cap: Annotated[int, Field(gt=0, lt=2**53)] | None = (
        None  # w = min(examples / cap, 1); the largest client where not given
    )
    stages: Pipeline = ()


class Server(Frame):
    optimizer: Optimizer = Component(name="sgd")
    lr: Positive = 1.0
    schedule: Annotated[Component, _named("constant")] = Component(name="constant")  # of the learning rate, over rounds
    trains: bool = False


class Evaluation(Frame):
    """`every` rounds, and the final model always; 0 scores the final model alone.  No `metrics`: the task's own."""

    every: Every = 1
    metrics: Names | None = None
    batch: Count = 1024
    clients: bool = True  # clients score the received model on their held-out examples


class Stop(BaseModel):
    """When to end before `rounds`: a target by its metric's name, `patience` in evaluations, wall `seconds`."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True, allow_inf_nan=False)
    patience: Count | None = None
    metric: str | None = None  # what patience and the best checkpoint look at; the first metric where not given
    seconds: Positive | None = None

    @property
    def targets(self) -> dict[str, float]:
        return dict(self.model_extra or {})


class Checkpoints(Frame):
    """Every how many rounds (0: only at a stop), and how many are kept besides the best."""

    every: Every = 1
    keep: Count = 2


class Job(Frame):
    """Everything a run needs."""

    name: Annotated[str, Field(min_length=1), AfterValidator(_folder)] = "run"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    rounds: Count
    loop: Annotated[Component, _named("synchronous")] = Component(name="synchronous")  # what a round is
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Annotated[int, Field(gt=0, le=1024)] | None = (
        None  # compute threads of a rank; its share of the node's cores where not given
    )
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
    if not isinstance(source, (str, os.PathLike, Mapping)):
        raise JobError(f"job: {shown(source)} given; should be a TOML file's path, or a dict of the same shape")
    table = dict(source) if isinstance(source, Mapping) else _load(Path(source))
    for text in overrides:
        _override(table, text)
    return validate(table)


def validate(table: Mapping[str, Any]) -> Job:
    """The job of a table, its frame checked; JobError names each wrong field, what was given and what is allowed."""
    _sane(table)
    try:
        return Job.model_validate(table)
    except pydantic.ValidationError as error:
        raise JobError(explain(error, Job)) from None


UNWRITABLE = re.compile("[\0\ud800-\udfff]")  # in a file, a folder's name or a journal
DEEP, LONG, MANY = 16, 4096, 10_000  # tables within tables, characters of a string, entries of a list or table


def _sane(table: Mapping[str, Any]) -> None:
    """Refuse what nothing that a job means could hold: what checks and shows values would fail on it first."""
    waiting: list[tuple[str, Any, int]] = [("", table, 0)]
    while waiting:
        field, value, depth = waiting.pop()
        at = shown(field, quotes=False) or "job"
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise JobError(f"{at}: {shown(value)} given; whole numbers should be less than 2^63 in size")
        if isinstance(value, str) and (len(value) > LONG or UNWRITABLE.search(value)):
            raise JobError(f"{at}: {shown(value)} given; should have at most {LONG} characters, none of them NUL")
        if isinstance(value, (Mapping, list, tuple)):
            if depth == DEEP or len(value) > MANY:
                raise JobError(f"{at}: should have at most {MANY} entries, and no more than {DEEP} tables deep")
            named = value.items() if isinstance(value, Mapping) else enumerate(value)
            for name, inner in named:
                if isinstance(value, Mapping) and (not isinstance(name, str) or len(name) > 200):
                    raise JobError(f"{at}: {shown(name)} is a key; keys should be strings of at most 200 characters")
                waiting.append((f"{field}.{name}" if field else str(name), inner, depth + 1))


def regular(path: Where, most: int | None = None) -> None:
    """Raise OSError where a path is no regular file, or one of more than `most` bytes.

    A device or a pipe must not even be opened: it might never end, or never begin.
    """
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is no regular file")
    if most is not None and found.st_size > most:
        raise OSError(errno.EFBIG, f"it has {found.st_size:,} bytes, more than {most:,}")


def _load(path: Path) -> dict[str, Any]:
    name = shown(str(path)) if len(str(path)) > LONG or "\0" in str(path) else str(path)
    try:
        regular(path, 2**16)  # TOML's reader takes minutes for a longer line of names
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise JobError(f"{path}: there is no such job file") from None
    except (OSError, ValueError) as error:  # a NUL in its name is a ValueError, like a wrong byte in its text
        told = error.strerror if isinstance(error, OSError) else error
        raise JobError(f"{name}: cannot be read as a job file: {told}") from None
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise JobError(f"{path}: is not TOML that can be read: its lists lie too deep in each other") from None
    except ValueError as error:  # TOMLDecodeError, or a whole number of thousands of digits
        raise JobError(f"{path}: is not TOML: {because(error)}") from None


def _override(table: dict[str, Any], text: str) -> None:
    field, equals, value = text.partition("=")
    keys = field.strip().split(".")
    if not equals or not all(keys) or keys[0] == "run" or len(keys) > DEEP:
        raise JobError(f"--set {shown(text)}: write FIELD=VALUE, as in --set local.lr=0.1")
    for index, key in enumerate(keys[:-1]):
        below = table.get(key, {})
        if isinstance(below, str):  # `strategy = "fedavg"` and `--set strategy.mu=1`
            below = {"name": below}
        if not isinstance(below, Mapping):
            raise JobError(f"--set {shown(text)}: {'.'.join(keys[: index + 1])} is {shown(below)}, not a table")
        table[key] = dict(below)
        table = table[key]
    table[keys[-1]] = _value(value.strip(), f"--set {shown(text)}")


def _value(text: str, where: str) -> Any:
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text  # a bare word is a string, so that a shell needs no second pair of quotes
    except (ValueError, RecursionError) as error:
        raise JobError(f"{where}: {because(error)}") from None
    return parsed["value"] if len(parsed) == 1 else text
