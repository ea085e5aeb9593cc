"""Whoever listens to a run hears every line, and may end the run with the model of one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fedmpi
from fedmpi.job import JobError
from fedmpi.records.journal import read_journal
from tests.rounds.test_run import FIXED, on, weights, without_times

Line = dict[str, Any]


def at(round: int, answer: Any = "enough") -> Callable[[Line], Any]:
    """A listener with an answer to the line of one round."""

    def stop(line: Line) -> Any:
        return answer if line["round"] == round else None

    return stop


def refused(words: str, job: dict[str, Any], on_round: Any, ranks: int = 1) -> None:
    with pytest.raises(JobError, match=words) as caught:
        on(ranks, job, on_round=on_round)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "kind",
    [
        {},
        {"strategy": "mime"},
        {"strategy": "ditto"},
        {"loop": "cyclic"},
        {"loop": "ensemble", "strategy": "local", "cohort": {}},
    ],
    ids=["one", "two-passes", "own-models", "cyclic", "ensemble"],
)
@pytest.mark.parametrize("ranks", [1, 3])
def test_a_reason_ends_the_run_as_if_it_had_no_more_rounds(
    job: dict[str, Any], tmp_path: Path, kind: dict[str, Any], ranks: int
) -> None:
    job |= kind if "loop" in kind else FIXED | kind
    short = fedmpi.train(job | {"rounds": 3})
    run = on(ranks, job, out=tmp_path / "run", on_round=at(3))
    assert all(torch.equal(weights(each), weights(short)) for each in run)
    assert run[0].stopped == "enough"
    lines = without_times(short.lines)
    assert lines[-1].pop("stopped") == "rounds"
    assert without_times(run[0].lines) == [*lines[:-1], lines[-1] | {"stopped": "enough"}]
    assert read_journal(tmp_path / "run" / "journal.jsonl") == run[0].lines
    assert len((tmp_path / "run" / "journal.jsonl").read_text().splitlines()) == 3
    assert (tmp_path / "run" / "DONE").read_text() == "enough\n"


def test_everybody_hears_every_line_and_the_last_with_the_reason(job: dict[str, Any]) -> None:
    heard: list[tuple[str, Line]] = []

    def first(line: Line) -> str | None:
        heard.append(("first", dict(line)))
        return "the first's  \n own" if line["round"] == 2 else None

    def second(line: Line) -> str | None:
        heard.append(("second", dict(line)))
        return "the second's" if line["round"] == 2 else None

    run = fedmpi.train(job, on_round=[first, second, print])
    assert run.stopped == "the first's own"
    assert [(name, line["round"], line.get("stopped")) for name, line in heard] == [
        (name, round, reason)
        for round, reason in ((1, None), (2, None), (2, "the first's own"))
        for name in ("first", "second")
    ]
    assert [line for name, line in heard if name == "second"][::2] == run.lines


@pytest.mark.parametrize(
    ("ending", "reason"), [({"rounds": 2}, "rounds"), ({"stop": {"loss": 1e9}}, "loss 1e+09 reached")]
)
def test_a_last_line_is_heard_once_and_no_answer_to_it_counts(
    job: dict[str, Any], ending: dict[str, Any], reason: str
) -> None:
    heard: list[Line] = []
    job |= ending | {"evaluation": {"every": 2}}
    for answer in ("enough", True):
        run = fedmpi.train(job, on_round=(at(2, answer), heard.append))
        assert run.stopped == reason
        assert heard == run.lines
        assert len(heard) == 2
        heard.clear()


def test_a_run_that_a_listener_ended_goes_on(job: dict[str, Any], tmp_path: Path) -> None:
    """As one that a target ended: to its end without the listener, no further with it."""
    job |= FIXED
    whole = fedmpi.train(job)
    fedmpi.train(job, out=tmp_path / "run", on_round=at(2))
    again = fedmpi.train(job, out=tmp_path / "run", resume=True, on_round=at(2, "still"))
    assert (again.stopped, again.lines[-1]["round"]) == ("still", 2)
    assert (tmp_path / "run" / "DONE").read_text() == "still\n"
    on_ranks = on(3, job, out=tmp_path / "run", resume=True)[0]
    assert torch.equal(weights(on_ranks), weights(whole))
    assert without_times(on_ranks.lines) == without_times(whole.lines)
    assert without_times(read_journal(tmp_path / "run" / "journal.jsonl")) == without_times(whole.lines)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (True, "True"),
        (False, "False"),
        (0, "0"),
        (0.5, "0.5"),
        ("", "''"),
        (" \n", r"' \\n'"),
        (b"enough", "b'enough'"),
        (np.zeros((3, 2)), r"array\(\[\[0\., 0\."),
    ],
)
@pytest.mark.parametrize("ranks", [1, 3])
def test_an_answer_that_is_no_reason_is_refused_by_name(
    job: dict[str, Any], answer: Any, words: str, ranks: int
) -> None:
    refused(
        rf"^on_round: at\.<locals>\.stop answered {words}.* of round 1; should be", job, [print, at(1, answer)], ranks
    )


def test_an_object_that_listens_is_named_by_its_class(job: dict[str, Any]) -> None:
    class Tracker:
        def __call__(self, line: Line) -> Any:
            return line["round"]

        def log(self, line: Line) -> Any:
            return line["round"]

    refused("^on_round: .*Tracker answered 1 ", job, Tracker())
    refused(r"^on_round: .*Tracker\.log answered 1 ", job, Tracker().log)


@pytest.mark.parametrize("wrong", [3, "print", [print, "print"], [None], {"a": print}, iter([print])])
def test_what_cannot_be_called_is_refused_before_the_run(job: dict[str, Any], wrong: Any, tmp_path: Path) -> None:
    refused("^on_round: .* given; should be a function of a journal line, or a list of such$", job, wrong, 2)
    with pytest.raises(JobError):
        fedmpi.train(job, out=tmp_path / "run", on_round=wrong)
    assert not (tmp_path / "run").exists()
