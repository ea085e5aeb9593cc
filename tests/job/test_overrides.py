"""`--set` lays a value over any field of a job."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from fedmpi.job import Component, Model, read
from tests.job.refusals import LEAST, refusal


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("rounds=50", "rounds", 50),
        ("seed=1_000", "seed", 1000),
        ("local.lr=0.5", "local.lr", 0.5),
        ("local.lr=1e-3", "local.lr", 1e-3),
        (" local.lr = 0.5 ", "local.lr", 0.5),
        ("name=hello", "name", "hello"),
        ("name=hello world", "name", "hello world"),
        ('name="hello"', "name", "hello"),
        ("name='50'", "name", "50"),
        ("data.shards=a=b", "data.shards", "a=b"),
        ("data.shards=/scratch/me/digits", "data.shards", "/scratch/me/digits"),
        ("server.trains=true", "server.trains", True),
        ("local={lr = 0.5, batch = 3}", "local.batch", 3),
        ("local.optimizer=adam", "local.optimizer", Component(name="adam")),
        ("local.optimizer.momentum=0.9", "local.optimizer", Component(name="sgd", momentum=0.9)),
        ("model.hidden=[5, 5]", "model", Model(name="mlp", hidden=[5, 5])),
        ("model.name=cnn", "model", Model(name="cnn")),
        ('aggregation.stages=["fixed-point"]', "aggregation.stages", (Component(name="fixed-point"),)),
        ('evaluation.metrics=["f1"]', "evaluation.metrics", ("f1",)),
        ("stop.accuracy=0.9", "stop.targets", {"accuracy": 0.9}),
    ],
)
def test_set_lays_a_value_over_any_field(text: str, field: str, value: Any) -> None:
    got: Any = read(LEAST, [text])
    for part in field.split("."):
        got = getattr(got, part)
    assert got == value


def test_the_last_set_counts_and_the_table_given_stays_as_it_was() -> None:
    table = LEAST | {"local": {"optimizer": "sgd"}, "model": {"name": "mlp", "hidden": [3]}}
    before = copy.deepcopy(table)
    made = read(table, ["local.lr=1", "local.lr=2", "local.optimizer.momentum=0.5", "model.hidden=[9]"])
    assert made.local.lr == 2
    assert made.local.optimizer == Component(name="sgd", momentum=0.5)
    assert table == before


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rounds", ["--set 'rounds'", "FIELD=VALUE"]),
        ("=3", ["FIELD=VALUE"]),
        ("local..lr=1", ["FIELD=VALUE"]),
        (".=1", ["FIELD=VALUE"]),
        ("rounds.x=1", ["--set 'rounds.x=1'", "rounds is 3, not a table"]),
        ("local.lr=fast", ["local.lr: 'fast' given"]),
        ("rounds=", ["rounds: '' given"]),
        ("local.learning_rate=1", ["local.learning_rate: is not a field"]),
        ("aggregation.stages=clip", ["aggregation.stages: 'clip' given; should be a list"]),
    ],
)
def test_a_set_that_cannot_be_is_refused(text: str, words: list[str]) -> None:
    said = refusal(LEAST, text)
    for word in words:
        assert word in said, said


def test_a_set_into_a_list_says_that_it_is_one() -> None:
    said = refusal(LEAST | {"aggregation": {"stages": ["fixed-point"]}}, "aggregation.stages.0=clip")
    assert "aggregation.stages is ['fixed-point'], not a table" in said
