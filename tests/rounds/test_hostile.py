"""Whatever a job says, it is trained or refused in one line of its own words: no traceback, no hang, no lost memory."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import fedmpi
from fedmpi.flow import Refused
from fedmpi.job import JobError, read

HUGE = 10**400
DEEP: Any = []
for _ in range(3000):
    DEEP = [DEEP]


def own(x: int = 1) -> int:
    """A callable of no kind that a job asks for."""
    return x


def never(round: int, rounds: int) -> float:
    return -1.0


def falls() -> Any:
    return never


def outcome(job: Mapping[str, Any], field: str, value: Any) -> str:
    """What is said of a job with `value` in `field`; "" where it is trained for a round."""
    table: dict[str, Any] = copy.deepcopy(dict(job)) | {"rounds": 1}
    *way, last = field.split(".")
    at = table
    for name in way:
        below = at.get(name, {})
        at[name] = {"name": below} if isinstance(below, str) else below
        at = at[name]
    at[last] = value
    try:
        fedmpi.train(table)
    except Refused as refused:
        text = str(refused)
        for line in text.split("\n"):  # one for each wrong field
            assert len(line) < 1500
            assert line.startswith(("job: ", "local.lr", "round 1", field.split(".")[0])), text
        return text
    return ""


VALUES = [2**63, -(2**63) - 1, HUGE, 10**5000, float("nan"), float("inf"), "\0", DEEP]
NUMBERS = [
    "rounds", "seed", "threads", "cohort.size", "cohort.fraction", "local.lr", "local.batch", "local.epochs",
    "local.steps", "local.l1", "local.l2", "local.clip", "aggregation.cap", "server.lr", "evaluation.every",
    "evaluation.batch", "stop.patience", "stop.seconds", "stop.accuracy", "checkpoint.every", "checkpoint.keep",
    "model.hidden", "strategy.mu", "cohort.sampler.over",
]  # fmt: skip


@pytest.mark.parametrize(
    "value", [2**63, -(2**63) - 1, HUGE, 10**5000, float("nan"), float("inf"), "\0", DEEP], ids=range(8)
)
@pytest.mark.parametrize("field", NUMBERS)
def test_a_number_that_nothing_could_hold_is_refused_by_its_field(job: dict[str, Any], field: str, value: Any) -> None:
    said = outcome(job | {"strategy": "fedprox"}, field, value)
    assert said.startswith((field, field.rsplit(".", 1)[0])), said


EXTREMES = [
    ("local.lr", 1e308), ("local.l2", 1e308), ("local.clip", 1e308), ("server.lr", 1e308), ("local.l1", 1e39),
    ("stop.accuracy", 1e308), ("local.lr", 1e30), ("server.lr", 1e30), ("local.lr", 5e-324), ("local.clip", 5e-324),
    ("strategy", {"name": "fedprox", "mu": 1e308}), ("strategy", {"name": "fedprox", "mu": 1e30}),
    ("strategy", {"name": "qfedavg", "q": 1e30}), ("strategy", {"name": "qfedavg", "q": 1e308}),
    ("strategy", {"name": "agnostic", "rate": 1e30}), ("strategy", {"name": "feddyn", "alpha": 5e-324}),
    ("strategy", {"name": "iiadmm", "rho": 5e-324, "zeta": 0.0}), ("strategy", {"name": "pfedme", "lam": 1e30}),
    ("strategy", {"name": "fedadam", "tau": 5e-324}), ("strategy", {"name": "moon", "temperature": 5e-324}),
    ("strategy", {"name": "ifca", "clusters": 10**9}), ("strategy", {"name": "ifca", "clusters": 1001}),
    ("strategy", {"name": "ditto", "steps": 2**62}),
    ("aggregation", {"stages": [{"name": "clip", "bound": 1e308}]}),
    ("aggregation", {"stages": [{"name": "clip", "bound": 5e-324}, "fixed-point"]}),
    ("aggregation", {"stages": [{"name": "fixed-point", "fraction": 2**62}]}),
    ("local.optimizer", {"name": "sgd", "momentum": 1e308}), ("local.optimizer", {"name": "adam", "eps": 1e308}),
    ("local.optimizer", {"name": "rprop", "etas": [1e-308, 1e308]}), ("local.optimizer", {"name": "asgd", "t0": 1e308}),
    ("local.schedule", {"name": "exponential", "decay": 5e-324}), ("local.schedule", {"name": "step", "every": 2**62}),
    ("cohort.sampler", {"name": "power-of-choice", "candidates": 2**62}), ("threads", 2**30),
    ("model", {"name": "mlp", "hidden": [10**12]}), ("model", {"name": "mlp", "hidden": [2**62]}),
    ("model", {"name": "mlp", "hidden": [10**6, 10**7]}), ("model", {"name": "mlp", "hidden": [1] * 10**6}),
    ("model", {"name": "mlp", "hidden": [10**9, 10**9]}), ("model", {"name": "char-lstm", "layers": 10**9}),
    ("model", {"name": "mlp", "dtype": [1]}), ("model", {"name": "mlp", "init": "/dev/zero"}),
    ("model", {"name": "mlp", "init": "a\0b"}),
    ("model", {"name": "x" * 10**6}), ("model", {"name": "a." * 5000 + "a:b"}),
    ("data", {"shards": "a\0b"}), ("data", {"shards": "\ud800"}), ("data", {"shards": "x" * 10**5}),
    ("name", "\0"), ("evaluation", {"metrics": ["\0"]}), ("run", {"data": DEEP}), ("strategy.head", DEEP),
    ("[]", 1), ("a(b", 1),
    ("cohort.sampler", {"name": "trace", "file": "/dev/zero"}), ("cohort.sampler", {"name": "trace", "file": "a\0b"}),
    ("cohort.sampler", {"name": "trace", "file": "x" * 1000}), ("cohort.sampler", {"name": "trace", "file": "."}),
]  # fmt: skip


@pytest.mark.parametrize("place", range(len(EXTREMES)))
def test_what_outgrows_memory_or_a_type_is_trained_or_refused(job: dict[str, Any], place: int) -> None:
    outcome(job, *EXTREMES[place])


KINDS = ["model", "task", "strategy", "loop", "cohort.sampler", "local.optimizer", "local.schedule", "server.optimizer",
         "server.schedule"]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "name",
    ["tests.rounds.test_hostile:own", "builtins:dict", "builtins:int", "math:cos", "os:getcwd", "sys:exit", "torch:nn",
     "torch.nn:Linear", "torch.nn:ReLU", "collections:OrderedDict", "fedmpi.strategies:Strategy", "torch:zeros",
     "fedmpi.cohort.samplers:Sampler", "fedmpi.plan.plan:Loop", "torch.optim:LBFGS", "torch.optim:Optimizer"],
)  # fmt: skip
def test_a_callable_of_the_wrong_kind_is_refused_by_its_field(job: dict[str, Any], kind: str, name: str) -> None:
    if (kind, name) == ("strategy", "fedmpi.strategies:Strategy"):
        return  # federated averaging
    assert outcome(job, kind, name).startswith(kind)


@pytest.mark.parametrize("kind", ["local.schedule", "server.schedule"])
def test_a_schedule_that_turns_the_rate_round_is_refused(job: dict[str, Any], kind: str) -> None:
    assert "gives -1 in round 1" in outcome(job, kind, "tests.rounds.test_hostile:falls")


@pytest.mark.parametrize("name", ["RMSprop", "Adam", "SGD", "AdamW", "Adagrad", "NAdam", "Rprop"])
def test_a_class_of_torch_s_is_the_optimizer_of_its_name(job: dict[str, Any], name: str) -> None:
    """To the bit: the same class, the same options."""
    for given in ({}, {"weight_decay": 0.01}) if name != "Rprop" else ({},):
        table = copy.deepcopy(job) | {"rounds": 2}
        models = []
        for which in (f"torch.optim:{name}", name.lower()):
            table["local"] = job["local"] | {"lr": 0.01, "optimizer": {"name": which, **given}}
            models.append(fedmpi.train(table).model.state_dict())
        for key, value in models[0].items():
            assert value.equal(models[1][key])


@pytest.mark.parametrize("name", ["LBFGS", "SparseAdam", "Adafactor"])
def test_an_optimizer_that_needs_more_than_a_vector_says_why(job: dict[str, Any], name: str) -> None:
    assert "cannot be" in outcome(job, "local.optimizer", f"torch.optim:{name}")


# Files.


@pytest.mark.parametrize("what", ["fifo", "device", "folder", "bytes", "huge", "deep", "digits", "nul"])
def test_a_job_file_that_is_none_is_refused_unread(tmp_path: Path, what: str) -> None:
    path = tmp_path / "job.toml"
    if what == "fifo":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    elif what == "bytes":
        path.write_bytes(b"name = '\xff'")
    elif what == "huge":
        path.write_bytes(b"#" * (2**20 + 1))
    elif what == "deep":
        path.write_text("rounds = " + "[" * 5000)
    elif what == "digits":
        path.write_text("rounds = 1" + "0" * 5000)
    path = Path("/dev/zero") if what == "device" else Path("a\0b") if what == "nul" else path
    with pytest.raises(JobError) as refused:
        read(path)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 400


def test_a_trace_that_never_begins_is_refused_unread(job: dict[str, Any], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "trace.csv")
    said = outcome(job, "cohort.sampler", {"name": "trace", "file": str(tmp_path / "trace.csv")})
    assert "no regular file" in said


@pytest.mark.parametrize(
    "name",
    ["a/b", "/", "..", ".", " ", "", "\t", "a\nb", "a\rb", "\u2028", "\u00a0 ", "x" * 201, "\u00e9" * 101, "\x1b[31m"],
)
def test_a_job_s_name_is_a_folder_s(job: dict[str, Any], name: str) -> None:
    assert outcome(job, "name", name).startswith("name: ")


@pytest.mark.parametrize(
    "name", ["a b", "mnist.2", "\u8054\u90a6", "\u0646\u0645\u200c\u0648", "..a", "-", "\U0001f9e0"]
)
def test_a_name_in_any_language_is_one(job: dict[str, Any], name: str) -> None:
    assert read(job | {"name": name}).name == name


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rounds=" + "9" * 400, "a number of 400 digits given"),
        ("rounds=" + "9" * 5000, "--set"),
        ("rounds=" + "[" * 3000, "rounds"),
        ("stop.accuracy=1" + "0" * 400, "stop.accuracy"),
        ("local.lr=1e308", "local.lr: 1e+308 given"),
        ("model.hidden=[1000000000000]", None),
        ("name=a/b", "name: 'a/b' given"),
        ("name=a\nrounds = 7", "name: "),
        ("name=\0", "name: "),
        (".".join(["a"] * 1000) + "=1", "FIELD=VALUE"),
        ("x" * 10**5 + "=1", "keys should be strings of at most 200"),
    ],
    ids=range(11),
)
def test_a_set_of_these_is_refused_alike(job: dict[str, Any], text: str, words: str | None) -> None:
    if words is None:
        read(job, [text])
        return
    with pytest.raises(JobError) as refused:
        read(job, [text])
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 1000


def test_a_dict_that_toml_could_not_hold_is_refused(job: dict[str, Any]) -> None:
    circle: dict[str, Any] = {}
    circle["inside"] = circle
    for value in (circle, {1: 2}, {"a": [circle]}):
        assert outcome(job, "run", value)
    for source in (5, None, ["rounds"], b"job.toml"):
        with pytest.raises(JobError):
            read(source)


def test_a_text_after_the_value_of_a_set_is_no_second_field(job: dict[str, Any]) -> None:
    assert read(job, ["data.shards=a # b"]).data.shards == "a # b"
    with pytest.raises(JobError):
        read(job, ["rounds=3\nseed=4"])
