"""Jobs with something wrong in them: a value, a name, a type, a table, or the text itself."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import tomli_w
import torch
from pydantic import BaseModel

import fedmpi
from fedmpi.cohort.samplers import SAMPLERS
from fedmpi.job import Job, Registry, read
from fedmpi.models import MODELS
from fedmpi.optim import OPTIMIZERS
from fedmpi.plan import assemble
from fedmpi.rounds.loops import LOOPS
from fedmpi.strategies import STRATEGIES
from fedmpi.training import SCHEDULES
from tests.fuzz.judge import Case, Wrong

TRAINED = 0.5  # of those that are accepted, how many are trained for a round
LARGE = 50_000_000  # values of a model: more would take a case's seconds

BASES: list[dict[str, Any]] = [
    {
        "name": "plain",
        "rounds": 2,
        "model": {"name": "mlp", "hidden": [3]},
        "local": {"lr": 0.1, "batch": 4, "epochs": 1},
    },
    {
        "name": "full",
        "seed": 3,
        "rounds": 2,
        "threads": 1,
        "loop": {"name": "synchronous"},
        "cohort": {"size": 2, "sampler": {"name": "round-robin", "shuffle": True}},
        "model": {"name": "mlp", "hidden": [4, 3], "activation": "tanh", "dtype": "float64"},
        "task": {"name": "classification"},
        "local": {
            "optimizer": {"name": "sgd", "momentum": 0.5},
            "lr": 0.05,
            "batch": 3,
            "steps": 2,
            "l2": 0.01,
            "clip": 2.0,
            "schedule": {"name": "step", "every": 2},
        },
        "strategy": {"name": "fedprox", "mu": 0.1},
        "aggregation": {"weights": "examples", "cap": 9, "stages": [{"name": "clip", "bound": 1.0}, "fixed-point"]},
        "server": {"optimizer": {"name": "adam"}, "lr": 0.1, "schedule": "cosine", "trains": True},
        "evaluation": {"every": 1, "metrics": ["accuracy", "f1"], "batch": 16, "clients": True},
        "stop": {"accuracy": 0.99, "patience": 3, "metric": "accuracy", "seconds": 600.0},
        "checkpoint": {"every": 1, "keep": 2},
    },
    {"name": "own", "rounds": 2, "model": "logistic", "strategy": {"name": "ditto"}, "cohort": {"fraction": 0.5}},
    {"name": "ring", "rounds": 2, "model": "linear", "loop": {"name": "cyclic"}},
    {"name": "vote", "rounds": 1, "model": "logistic", "loop": "ensemble"},
]

HUGE = [2**31, 2**63 - 1, 2**63, 2**64, 10**30, 10**400, -1, -(2**63), -(10**40), 0, 1]
FLOATS = [float("nan"), float("inf"), -float("inf"), 1e308, -1e308, 5e-324, 1e-300, 0.0, -0.0, -1.5, 3.0]
LIKELY: list[Any] = [
    1,
    2,
    3,
    5,
    0.5,
    0.01,
    0.9,
    0.999,
    True,
    False,
    "cosine",
    "adam",
    ["accuracy"],
    [2, 2],
    ["fixed-point"],
]
TEXTS = [
    "", " ", "\0", "a\0b", "\n", "two\nlines", "a/b", "../up", "x" * 3000, "é", "\u202e", "nan", "1", "true",
    "[]", "{}",
    "/dev/zero", "/dev/null", "/", ".", "~", "\ud7ff", "a:b", ":", "a:", ":b", "..:x", "a.b.c:d", "\x1b[31m", "fedavg ",
]  # fmt: skip
WRONG_KINDS = [
    "builtins:int", "builtins:dict", "builtins:print", "builtins:Exception", "builtins:type", "math:pi", "math:sqrt",
    "json:loads", "os:getcwd", "os.path:join", "collections:Counter", "torch.nn:Linear", "torch.nn:Module",
    "torch.nn:Identity", "torch:zeros", "torch:nn", "torch.optim:SGD", "torch.optim:Adam", "torch.optim:LBFGS",
    "torch.optim:Optimizer", "torch.optim.lr_scheduler:StepLR", "numpy:zeros", "numpy.random:default_rng",
    "fedmpi:train", "fedmpi:Refused", "fedmpi.cohort.samplers:Sampler", "fedmpi.strategies:Strategy",
    "fedmpi.models:mlp",
    "fedmpi.evaluation:Scorer", "fedmpi.flow:Passage", "pathlib:Path", "no.such:thing", "fedmpi:nothing",
    "re:compile",
]  # fmt: skip
SHAPES: list[Any] = [
    [],
    {},
    [[]],
    [{}],
    {"name": "x"},
    {"name": 3},
    {"name": {}},
    [1, "a"],
    [None],
    True,
    False,
    [[[1]]],
]
NAMES = [
    *STRATEGIES, *SAMPLERS, *LOOPS, *MODELS, *SCHEDULES, *OPTIMIZERS, "clip", "fixed-point", "accuracy", "f1", "auroc",
    "classification", "binary", "regression", "next-character",
]  # fmt: skip
ROOMS: dict[tuple[str, ...], Registry[Any]] = {
    ("strategy",): STRATEGIES,
    ("loop",): LOOPS,
    ("cohort", "sampler"): SAMPLERS,
    ("model",): MODELS,
    ("local", "schedule"): SCHEDULES,
    ("server", "schedule"): SCHEDULES,
    ("local", "optimizer"): OPTIMIZERS,
    ("server", "optimizer"): OPTIMIZERS,
}
COMPONENTS = [*ROOMS, ("task",), ("aggregation", "stages")]
FREE = {("stop",), ("run",)}  # tables whose further fields have names of the job's choosing

Path_ = tuple[str, ...]


def make(rng: random.Random, folder: Path, shards: Path) -> Case:
    """One job with one to three things changed; now and then its text, or a --set, rather than its table."""
    table = copy.deepcopy(rng.choice(BASES)) | {"data": {"shards": str(shards)}}
    whole = copy.deepcopy(table)
    told, refuse, overrides = [], False, []
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        way = rng.choice(WAYS)
        said, must = way(rng, table, overrides)
        told.append(said)
        refuse = refuse or must
    text: bytes | None = None
    if rng.random() < 0.1:
        text, said = _text(rng, whole)
        told, refuse, overrides = [said], False, []
    path = folder / "job.toml"
    try:
        path.write_bytes(tomli_w.dumps(table).encode("utf-8", "surrogatepass") if text is None else text)
    except TypeError:  # a None somewhere: TOML has none, a script's dict may
        return Case("; ".join(told), lambda: _tried(table, overrides, rng.random() < TRAINED, folder), refuse)
    return Case("; ".join(told), lambda: _tried(path, overrides, rng.random() < TRAINED, folder), refuse)


def _tried(source: Any, overrides: list[str], train: bool, folder: Path) -> None:
    """Read, assembled and perhaps trained: numbers that come of it are finite."""
    job = read(source, overrides)
    plan = assemble(job, loops=LOOPS)
    count = sum(parameter.numel() for parameter in plan.model.parameters())
    steps = (job.local.steps or job.local.epochs or 1) * job.rounds
    if not train or count > LARGE or steps > 50 or plan.cohort > 50:
        return
    run = fedmpi.train(job, out=folder / "run")
    for name, tensor in run.model.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise Wrong(f"{name} of the trained model is not finite")
    if len(run.lines) > job.rounds or not (folder / "run" / "DONE").exists():
        raise Wrong(f"{len(run.lines)} lines of {job.rounds} rounds")


def _weird(rng: random.Random) -> Any:
    pool = rng.choice([LIKELY, LIKELY, LIKELY, HUGE, HUGE, FLOATS, FLOATS, TEXTS, WRONG_KINDS, SHAPES, NAMES])
    value = rng.choice(pool)
    return [value] * rng.choice([1, 2, 40]) if rng.random() < 0.05 else value


def _leaves(table: Any, at: Path_ = ()) -> list[Path_]:
    found = []
    for name, value in table.items():
        found.append((*at, name))
        if isinstance(value, dict):
            found += _leaves(value, (*at, name))
    return found


def _parent(table: dict[str, Any], path: Path_) -> dict[str, Any] | None:
    for name in path[:-1]:
        value = table.get(name, {})
        if isinstance(value, str):
            value = {"name": value}
        if not isinstance(value, dict):
            return None
        table[name] = value
        table = value
    return table


def _put(table: dict[str, Any], path: Path_, value: Any) -> None:
    parent = _parent(table, path)
    if parent is not None:
        parent[path[-1]] = value


def _replaced(rng: random.Random, table: dict[str, Any], overrides: list[str]) -> tuple[str, bool]:
    path, value = rng.choice(_leaves(table)), _weird(rng)
    _put(table, path, value)
    return f"{'.'.join(path)} = {value!r:.80}", False


def _schema(frame: type[BaseModel], at: Path_ = ()) -> list[Path_]:
    found: list[Path_] = []
    for name, info in frame.model_fields.items():
        kinds = [info.annotation, *get_args(info.annotation)]
        inner = next((k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)), None)
        found.append((*at, name))
        if inner is not None and (*at, name) not in COMPONENTS:
            found += _schema(inner, (*at, name))
    return found


FIELDS = _schema(Job)


def _added(rng: random.Random, table: dict[str, Any], overrides: list[str]) -> tuple[str, bool]:
    path, value = rng.choice(FIELDS), _weird(rng)
    _put(table, path, value)
    return f"{'.'.join(path)} = {value!r:.80}", False


def _optioned(rng: random.Random, table: dict[str, Any], overrides: list[str]) -> tuple[str, bool]:
    """A component of a room, with one of its own options at an odd value."""
    room = rng.choice(list(ROOMS))
    name = rng.choice(list(ROOMS[room]))
    allowed = list(ROOMS[room].options(name))
    chosen: dict[str, Any] = {"name": name}
    if allowed and rng.random() < 0.8:
        chosen[rng.choice(allowed)] = _weird(rng)
    _put(table, room, chosen)
    return f"{'.'.join(room)} = {chosen!r:.80}", False


def _misspelt(rng: random.Random, table: dict[str, Any], overrides: list[str]) -> tuple[str, bool]:
    path = rng.choice(_leaves(table))
    parent, name = _parent(table, path), path[-1]
    assert parent is not None
    place = rng.randrange(len(name))
    other = rng.choice(
        [name[:place] + name[place + 1 :], name + "s", name.upper(), name + " ", "", name[:place] + "-" + name[place:]]
    )
    if other == name or other in parent:
        return "nothing", False
    parent[other] = parent.pop(name)
    return f"{'.'.join(path)} is called {other!r}", path[:-1] not in FREE


def _lost(rng: random.Random, table: dict[str, Any], overrides: list[str]) -> tuple[str, bool]:
    path = rng.choice(_leaves(table))
    parent = _parent(table, path)
    assert parent is not None
    parent.pop(path[-1], None)
    return f"no {'.'.join(path)}", path in {("rounds",), ("model",), ("data",), ("data", "shards")}


def _wrong_kind(rng: random.Random, table: dict[str, Any], overrides: list[str]) -> tuple[str, bool]:
    room, value = rng.choice(COMPONENTS), rng.choice(WRONG_KINDS)
    _put(table, room, [value] if room[-1] == "stages" else value)
    return f"{'.'.join(room)} = {value!r}", room[0] not in ("model", "local", "server")


def _swapped(rng: random.Random, table: dict[str, Any], overrides: list[str]) -> tuple[str, bool]:
    room, value = rng.choice(COMPONENTS), rng.choice(NAMES)
    _put(table, room, [value] if room[-1] == "stages" else value)
    return f"{'.'.join(room)} = {value!r}", False


def _set(rng: random.Random, table: dict[str, Any], overrides: list[str]) -> tuple[str, bool]:
    field = ".".join(rng.choice(FIELDS)) if rng.random() < 0.7 else rng.choice(TEXTS)
    value = (
        str(_weird(rng))
        if rng.random() < 0.8
        else rng.choice(["", "[", "{", '"', "'''", "1_0", "0x1F", "1979-05-27", "[1,"])
    )
    text = rng.choice(
        [f"{field}={value}", f"{field}={value}", f"{field}", f"={value}", f"{field}.x.y={value}", f"{field} = {value}"]
    )
    overrides.append(text)
    return f"--set {text!r:.90}", False


WAYS: list[Callable[[random.Random, dict[str, Any], list[str]], tuple[str, bool]]] = [
    _replaced, _replaced, _replaced, _added, _added, _added, _optioned, _optioned, _optioned, _misspelt, _lost,
    _wrong_kind, _wrong_kind, _swapped, _swapped, _set, _set,
]  # fmt: skip


def _text(rng: random.Random, table: dict[str, Any]) -> tuple[bytes, str]:
    """The file's text rather than what it says."""
    text = tomli_w.dumps(table)
    place = rng.randrange(len(text))
    deep = rng.choice([50, 900, 5000, 15_000, 100_000])
    ways: dict[str, Callable[[], bytes]] = {
        "empty": lambda: b"",
        "blank": lambda: b"\n \n",
        "cut short": lambda: text[:place].encode(),
        "a byte changed": lambda: text[:place].encode() + bytes([rng.randrange(256)]) + text[place + 1 :].encode(),
        f"lists {deep} deep": lambda: (f"deep = {'[' * deep}{']' * deep}\n" + text).encode(),
        f"tables {deep} deep": lambda: (text + f"\n[{'.'.join(['a'] * deep)}]\n").encode(),
        f"inline tables {deep} deep": lambda: (f"deep = {'{a=' * deep}1{'}' * deep}\n" + text).encode(),
        "a million digits": lambda: (f"seed = {'9' * 10**6}\n" + text).encode(),
        "rounds of 400 digits": lambda: text.replace("rounds = ", "rounds = " + "7" * 400, 1).encode(),
        "UTF-16": lambda: text.encode("utf-16"),
        "a byte order mark": lambda: b"\xef\xbb\xbf" + text.encode(),
        "lines of Windows": lambda: text.replace("\n", "\r\n").encode(),
        "a table twice": lambda: (text + "\n[data]\nshards = 'x'\n").encode(),
        "zeros": lambda: bytes(1000),
        "noise": lambda: rng.randbytes(500),
    }
    name = rng.choice(list(ways))
    return ways[name](), f"the text: {name}"


def shard_set(folder: Path) -> Path:
    """Six clients of a few examples in three classes."""
    random_ = np.random.default_rng(1)
    clients = {}
    for client in range(6):
        y = random_.integers(0, 3, 9)
        clients[f"c{client}"] = (random_.normal(size=(9, 4)).astype(np.float32) + y[:, None], y)
    fedmpi.write_shards(folder, clients, holdout=0.3, classes=("a", "b", "c"))
    return folder
