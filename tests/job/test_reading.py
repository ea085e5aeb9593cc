"""What is wrong with a job is told in its own words: the field, what was given, what is allowed."""

from __future__ import annotations

import math
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmpi import job
from fedmpi.job import Cohort, Component, JobError, Model, read
from tests.job.refusals import LEAST, lawful, refusal

# What is right.


def test_the_least_job_is_three_fields_and_the_rest_are_defaults() -> None:
    made = read(LEAST)
    assert (made.name, made.seed, made.device) == ("run", 0, "auto")
    assert made.model == Model(name="mlp")
    assert made.strategy.name == "fedavg"
    assert made.local.optimizer.name == made.server.optimizer.name == "sgd"
    assert made.aggregation.weights == "examples"
    assert made.stop.targets == {}


def test_the_job_of_the_issue_is_read(tmp_path: Path) -> None:
    text = """
    name = "digits"
    seed = 1
    rounds = 30

    [data]
    shards = "data/digits"
    [cohort]
    size = 10
    [model]
    name = "mlp"
    hidden = [200, 200]
    [local]
    optimizer = "sgd"
    lr = 0.1
    batch = 10
    epochs = 5
    [strategy]
    name = "fedavg"
    [aggregation]
    weights = "examples"
    stages = [{name = "clip", bound = 10.0}, "fixed-point"]
    [evaluation]
    every = 1
    metrics = ["accuracy", "f1"]
    [stop]
    accuracy = 0.97
    """
    path = tmp_path / "job.toml"
    path.write_text(text)
    made = read(path)
    assert made.rounds == 30
    assert made.model.options == {"hidden": [200, 200]}
    assert [(stage.name, stage.options) for stage in made.aggregation.stages] == [
        ("clip", {"bound": 10.0}),
        ("fixed-point", {}),
    ]
    assert made.evaluation.metrics == ("accuracy", "f1")
    assert made.stop.targets == {"accuracy": 0.97}
    assert read(tomllib.loads(text)) == made
    assert read(str(path)) == made


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[2] / "jobs").glob("*.toml")), ids=lambda path: path.name
)
def test_the_recipes_are_read(path: Path) -> None:
    assert read(path).name == path.stem


def test_a_model_s_type_and_file_are_no_options_of_its_factory() -> None:
    model = read(LEAST | {"model": {"name": "mlp", "dtype": "float64", "init": "a.safetensors", "hidden": [3]}}).model
    assert (model.dtype, model.init, model.options) == ("float64", "a.safetensors", {"hidden": [3]})
    assert (read(LEAST).model.dtype, read(LEAST).model.init) == (None, None)


@pytest.mark.parametrize(
    ("table", "component"),
    [
        ({"local": {"optimizer": "adam"}}, Component(name="adam")),
        ({"local": {"optimizer": {"name": "adam", "eps": 1e-3}}}, Component(name="adam", eps=1e-3)),
        ({"local": {"optimizer": {"momentum": 0.9}}}, Component(name="sgd", momentum=0.9)),
    ],
)
def test_a_component_is_a_name_a_table_or_options_of_the_usual_one(table: Any, component: Component) -> None:
    assert read(LEAST | table).local.optimizer == component


@lawful
@given(clients=st.integers(1, 10**6), fraction=st.floats(0, 1, exclude_min=True))
def test_a_fraction_of_the_clients_is_at_least_one_and_at_most_all(clients: int, fraction: float) -> None:
    size = Cohort(fraction=fraction).of(clients)
    assert 1 <= size <= clients
    assert size == 1 or abs(size - fraction * clients) <= 0.5


def test_a_cohort_is_a_number_or_everybody() -> None:
    assert Cohort(size=10).of(100) == 10
    assert Cohort().of(7) == 7


# What is wrong.


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"rounds": 0}, "rounds: 0 given; should be greater than 0"),
        ({"rounds": "ten"}, "rounds: 'ten' given; should be an integer"),
        ({"rounds": 1.5}, "rounds: 1.5 given; should be an integer"),
        ({"rounds": True}, "rounds: True given; should be an integer"),
        ({"seed": -1}, "seed: -1 given; should be greater than or equal to 0"),
        ({"name": 3}, "name: 3 given; should be a string"),
        ({"device": "gpu"}, "device: 'gpu' given; should be 'auto', 'cpu' or 'cuda'"),
        ({"data": "digits"}, "data: 'digits' given; should be a table"),
        ({"data": {}}, "data.shards: is missing"),
        ({"cohort": {"size": 0}}, "cohort.size: 0 given; should be greater than 0"),
        ({"cohort": {"fraction": 1.5}}, "cohort.fraction: 1.5 given; should be less than or equal to 1"),
        ({"model": {}}, "model.name: is missing"),
        ({"model": {"hidden": [3]}}, "model.name: is missing"),
        (
            {"model": {"name": "mlp", "dtype": "float16"}},
            "model.dtype: 'float16' given; should be 'float32' or 'float64'",
        ),
        (
            {"model": {"name": "mlp", "init": 3}},
            "model.init: 3 given; should be the path of a safetensors file",
        ),
        ({"local": {"lr": -1}}, "local.lr: -1 given; should be greater than 0"),
        ({"local": {"lr": "0.1"}}, "local.lr: '0.1' given; should be a number"),
        ({"local": {"batch": 2.5}}, "local.batch: 2.5 given; should be an integer"),
        ({"aggregation": {"weights": "none"}}, "aggregation.weights: 'none' given; should be 'examples' or 'uniform'"),
        (
            {"aggregation": {"stages": "clip"}},
            "aggregation.stages: 'clip' given; should be a list; "
            'did you mean [[aggregation.stages]] name = "clip" bound = ...?',
        ),
        ({"aggregation": {"stages": ["clip", {"bound": 1}]}}, "aggregation.stages.1.name: is missing"),
        ({"evaluation": {"metrics": "accuracy"}}, "evaluation.metrics: 'accuracy' given; should be a list"),
        ({"evaluation": {"metrics": ["f1", 3]}}, "evaluation.metrics.1: 3 given; should be a string"),
        ({"evaluation": {"clients": "no"}}, "evaluation.clients: 'no' given; should be a boolean"),
        ({"server": {"trains": 1}}, "server.trains: 1 given; should be a boolean"),
        ({"stop": {"patience": 0}}, "stop.patience: 0 given; should be greater than 0"),
        ({"checkpoint": {"keep": 0}}, "checkpoint.keep: 0 given; should be greater than 0"),
        ({"data": {"shards": "d", "fold": 1}}, "data.fold: is not a field; there are shards"),
        (
            {"local": {"learning_rate": 0.1}},
            "local.learning_rate: is not a field; "
            "there are optimizer, lr, batch, remainder, epochs, steps, l1, l2, clip, schedule, engine; "
            "did you mean 'lr'?",
        ),
    ],
    ids=str,
)
def test_one_line_names_the_field_what_was_given_and_what_is_allowed(table: Any, said: str) -> None:
    assert refusal(LEAST | table) == said


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"cohort": {"size": 2, "fraction": 0.5}}, ["cohort", "size", "fraction", "not both"]),
        ({"local": {"epochs": 2, "steps": 5}}, ["local", "epochs", "steps", "not both"]),
        ({"roundz": 3}, ["roundz: is not a field", "rounds", "aggregation"]),
        ({"name": ""}, ["name", "''", "at least 1 character"]),
        ({"seed": 2**63}, ["seed", str(2**63), "less than"]),
        ({"strategy": 3}, ["strategy", "3", "table"]),
        ({"local": {"my lr": 1}}, ["local.my lr: is not a field", "lr, batch"]),
    ],
    ids=str,
)
def test_a_refusal_has_the_words_that_help(table: Any, words: list[str]) -> None:
    text = refusal(LEAST | table)
    assert "\n" not in text
    for word in words:
        assert word in text, text


@pytest.mark.parametrize("field", ["lr", "l1", "l2", "clip"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_toml_s_nan_and_inf_are_no_numbers_to_train_with(field: str, value: float) -> None:
    assert f"local.{field}: {value} given" in refusal(LEAST | {"local": {field: value}})


def test_every_wrong_field_has_its_line() -> None:
    text = refusal({"rounds": 0, "data": {"shards": 3}, "local": {"lr": -1}, "nonsense": 1})
    assert sorted(line.split(":")[0] for line in text.split("\n")) == [
        "data.shards", "local.lr", "model", "nonsense", "rounds"
    ]  # fmt: skip


def test_a_long_value_is_cut() -> None:
    assert len(refusal(LEAST | {"rounds": "x" * 1000})) < 150


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "there is no such job file"),
        (b"rounds = ", "is not TOML"),
        (b"\xff\xfe", "cannot be read as a job file"),
        (b"rounds = 3\nrounds = 4\n", "is not TOML"),
    ],
)
def test_a_file_that_is_no_job_is_named(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "job.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(JobError) as refused:
        read(path)
    assert str(refused.value).startswith(f"{path}: {words}")
    assert "\n" not in str(refused.value)


def test_a_folder_is_no_job(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="cannot be read as a job file"):
        read(tmp_path)


json_like = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(st.text(max_size=5), inner, max_size=2)),
    max_leaves=4,
)


@lawful
@given(field=st.sampled_from([*job.Job.model_fields, "other"]), value=json_like)
def test_whatever_is_in_a_field_the_job_is_read_or_refused_by_that_field(field: str, value: Any) -> None:
    try:
        read(LEAST | {field: value})
    except JobError as refused:
        for line in str(refused).split("\n"):
            assert line.startswith(field)
