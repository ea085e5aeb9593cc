"""What a person is told of a run: every score of a journal line by its right name, clients' own models among them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from fedmpi.cli.progress import Progress

TABLES: dict[str, Any] = {
    "test": {"loss": 0.11, "accuracy": 0.12},
    "clients": {"loss": {"mean": 0.21, "worst_tenth": 0.22}, "accuracy": {"mean": 0.23, "worst_tenth": 0.24}},
    "personal": {"loss": {"mean": 0.31, "worst_tenth": 0.32}, "accuracy": {"mean": 0.33, "worst_tenth": 0.34}},
}
WORDS = {"test": "", "clients": "clients' ", "personal": "own model "}


def line(*tables: str, **fields: Any) -> dict[str, Any]:
    evaluation = {name: TABLES[name] for name in tables}
    return {
        "round": 2,
        "train_loss": 0.5,
        "evaluation": evaluation,
        "seconds": {"total": 0.1, "elapsed": 3.0},
        **fields,
    }


@pytest.fixture
def progress() -> Progress:
    return Progress("toy", rounds=2, ranks=3)


@pytest.mark.parametrize(
    "tables", [["test", "clients"], ["test", "clients", "personal"], ["personal"], ["clients"], []]
)
def test_a_plain_line_tells_the_tables_that_are_there(
    progress: Progress, tables: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    progress.round(line(*tables))
    said = capsys.readouterr().out
    assert "round 2/2  loss 0.5000" in said
    found = re.findall(r"((?:clients' |own model )?)accuracy ([\d.]+)(?: \(worst tenth ([\d.]+)\))?", said)
    expected = {"test": ("0.1200", ""), "clients": ("0.2300", "0.2400"), "personal": ("0.3300", "0.3400")}
    assert found == [(WORDS[name], *expected[name]) for name in tables]


@pytest.mark.parametrize(
    ("tables", "told"),
    [
        (["test", "clients", "personal"], "accuracy 0.1200  own model accuracy 0.3300"),
        (["test", "clients"], "accuracy 0.1200"),
        (["personal"], "own model accuracy 0.3300"),
    ],
)
def test_the_live_display_has_room_for_what_leads(progress: Progress, tables: list[str], told: str) -> None:
    progress.round(line(*tables))
    assert progress._text(line(*tables), short=True) == f"loss 0.5000  {told}  0.100 s/round"


def test_the_last_word_tells_own_models_apart(progress: Progress, capsys: pytest.CaptureFixture[str]) -> None:
    progress.round(line("clients", "personal", stopped="rounds"))
    capsys.readouterr()
    progress.summary(Path("out"), None)
    said = [text.split() for text in capsys.readouterr().out.splitlines()]
    assert ["clients'", "accuracy", "mean", "0.2300,", "worst", "tenth", "0.2400"] in said
    assert ["own", "model", "accuracy", "mean", "0.3300,", "worst", "tenth", "0.3400"] in said
    assert ["own", "model", "loss", "mean", "0.3100,", "worst", "tenth", "0.3200"] in said
    assert not [words for words in said if words[0] == "test"]


def test_a_score_that_is_none_is_left_out(progress: Progress, capsys: pytest.CaptureFixture[str]) -> None:
    none = {"accuracy": {"mean": None, "worst_tenth": None, "std": None}}
    progress.round({**line(), "evaluation": {"test": {"accuracy": None}, "clients": none, "personal": none}})
    progress.summary(Path("out"), None)
    assert "accuracy" not in capsys.readouterr().out
