"""A run ends for the first reason there is, and says which; what it counted goes on after a resume."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmpi.job import JobError, Stop
from fedmpi.plan.stop import Stopper

lawful = settings(derandomize=True, database=None, deadline=None, max_examples=150)
SCORES = ("loss", "accuracy", "error")


def higher(metric: str) -> bool:
    return metric == "accuracy"


def stopper(scores: tuple[str, ...] = SCORES, **table: Any) -> Stopper:
    return Stopper(Stop.model_validate(table), scores, higher)


def line(round: int, elapsed: float = 0.0, clients: bool = False, **scores: float | None) -> dict[str, Any]:
    spread = {name: {"mean": value, "worst_tenth": None, "std": None} for name, value in scores.items()}
    evaluation = {"clients": spread} if clients else {"test": scores, "clients": {"accuracy": {"mean": 1.0}}}
    return {"round": round, "seconds": {"elapsed": elapsed}, "evaluation": evaluation if scores else {}}


@lawful
@given(
    values=st.lists(st.one_of(st.none(), st.floats(0, 1)), min_size=1, max_size=20),
    patience=st.integers(1, 4),
    metric=st.sampled_from(SCORES),
    cut=st.integers(0, 20),
)
def test_patience_and_the_best_are_a_plain_loop_s_also_over_a_resume(
    values: list[float | None], patience: int, metric: str, cut: int
) -> None:
    ours = stopper(metric=metric, patience=patience)
    best, best_round, since = None, 0, 0
    for round, value in enumerate(values, 1):
        if round == cut:
            told = json.loads(json.dumps(ours.state()))
            ours = stopper(metric=metric, patience=patience)
            ours.load(told)
        if value is not None:
            signed = value if metric == "accuracy" else -value
            if best is None or signed > best:
                best, best_round, since = signed, round, 0
            else:
                since += 1
        this = line(round, **{metric: value}) if value is not None else line(round)
        ended = ours.look(this)
        assert ours.improved(this) == (best_round == round)
        assert ours.best_round == best_round
        assert (ended is not None) == (since >= patience)
        if ended is not None:
            assert ended == f"patience: {since} evaluations without a better {metric}"
            return


@pytest.mark.parametrize(
    ("metric", "target", "before", "at"),
    [("accuracy", 0.9, 0.8999, 0.9), ("loss", 0.5, 0.5001, 0.5), ("error", 0, 0.1, 0.0), ("accuracy", 1, 0.99, 1.0)],
)
@pytest.mark.parametrize("clients", [False, True], ids=["central", "clients"])
def test_a_target_is_met_from_the_right_side(
    metric: str, target: float, before: float, at: float, clients: bool
) -> None:
    ours = stopper(**{metric: target})
    assert ours.look(line(1, clients=clients, **{metric: before})) is None
    assert ours.look(line(2)) is None
    assert ours.look(line(3, clients=clients, **{metric: None})) is None
    assert ours.look(line(4, clients=clients, **{metric: at})) == f"{metric} {target:g} reached"


def test_the_central_score_counts_where_there_is_one() -> None:
    assert stopper(accuracy=0.9).look(line(1, accuracy=0.5)) is None  # though the clients' mean is 1


def test_any_of_several_targets_ends_the_run() -> None:
    ours = stopper(accuracy=0.9, loss=0.1)
    assert ours.look(line(1, accuracy=0.5, loss=0.2)) is None
    assert ours.look(line(2, accuracy=0.5, loss=0.05)) == "loss 0.1 reached"


def test_time_is_the_whole_run_s() -> None:
    ours = stopper(seconds=10.0)
    assert ours.look(line(1, elapsed=9.9)) is None
    assert ours.look(line(2, elapsed=10.0)) == "10 seconds"


def test_a_target_is_told_before_time_or_patience() -> None:
    ours = stopper(seconds=1.0, accuracy=0.9, patience=1)
    assert ours.look(line(1, elapsed=5.0, accuracy=0.95)) == "accuracy 0.9 reached"


def test_a_score_that_is_no_number_is_never_the_best() -> None:
    ours = stopper(metric="accuracy", patience=3)
    assert ours.look(line(1, accuracy=None)) is None
    assert not ours.improved(line(1))
    ours.look(line(2, accuracy=0.3))
    assert ours.improved(line(2))
    assert ours.best == 0.3


def test_without_a_word_nothing_ends_the_run() -> None:
    ours = stopper()
    assert [ours.look(line(round, elapsed=1e6, accuracy=0.0, loss=9.0)) for round in range(1, 50)] == [None] * 49
    assert ours.metric == "accuracy"
    assert stopper(("loss",)).metric == "loss"
    assert stopper(metric="error").metric == "error"


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"acuracy": 0.9}, ["stop.acuracy", "patience", "metric", "seconds", "loss", "accuracy", "error"]),
        ({"f1": 0.9}, ["stop.f1", "evaluation.metrics"]),
        ({"accuracy": "high"}, ["stop.accuracy", "'high'", "number"]),
        ({"accuracy": True}, ["stop.accuracy", "True", "number"]),
        ({"metric": "f1"}, ["stop.metric", "'f1'", "loss, accuracy, error"]),
        ({"accuracy": float("nan")}, ["stop.accuracy", "nan"]),
    ],
    ids=str,
)
def test_what_it_cannot_look_at_is_refused_by_field(table: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(JobError) as refused:
        stopper(**table)
    assert "\n" not in str(refused.value)
    for word in words:
        assert word in str(refused.value)
