"""What is waited for: one line that is replaced on a terminal, plain lines elsewhere, nothing where nobody wants it."""

from __future__ import annotations

import json
import sys

import pytest

from fedmpi.launch.waiting import Waiting
from fedmpi.tell import MARK, TOLD


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> Waiting:
    monkeypatch.delenv(TOLD, raising=False)
    made = Waiting()
    made.wanted = True
    return made


def test_elsewhere_each_is_a_line_once(waiting: Waiting, capsys: pytest.CaptureFixture[str]) -> None:
    for text in ("starting 3 ranks", "importing torch", "importing torch", ""):
        waiting(text)
    assert capsys.readouterr().out == "starting 3 ranks\nimporting torch\n"


def test_on_a_terminal_one_replaces_the_other_and_nothing_stays(
    waiting: Waiting, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    for text in ("starting", "importing", ""):
        waiting(text)
    said = capsys.readouterr().out
    assert "\n" not in said
    assert [part for part in said.split("\r\x1b[2K") if part] == ["starting ...", "importing ..."]
    assert said.endswith("\r\x1b[2K")


def test_a_rank_leaves_it_to_its_launcher(
    waiting: Waiting, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(TOLD, "1")
    waiting("importing torch")
    said = capsys.readouterr()
    assert said.out == ""
    assert json.loads(said.err.removeprefix(MARK)) == {"waiting": "importing torch"}


def test_nothing_where_nobody_wants_it(capsys: pytest.CaptureFixture[str]) -> None:
    Waiting()("starting")
    assert capsys.readouterr() == ("", "")
