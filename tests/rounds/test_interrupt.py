"""A run that was asked to stop finishes its round, keeps it, and goes on as if it had never been asked."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import fedmpi
from fedmpi import hear
from fedmpi.job import read
from fedmpi.records.journal import read_journal
from fedmpi.rounds import baseline
from fedmpi.tell import Interrupted
from tests.fake import Fake, launch
from tests.rounds.test_run import FIXED, weights, without_times

KINDS: dict[str, dict[str, Any]] = {
    "synchronous": {"server": {"optimizer": "adam", "lr": 0.05}},
    "a memory, and seldom a checkpoint": {"strategy": "scaffold", "checkpoint": {"every": 3}},
    "no checkpoint but this": {"checkpoint": {"every": 0}},
    "two passes": {"strategy": "mime"},
    "own models": {"strategy": "ditto"},
    "patience": {"stop": {"patience": 3}},
    "a ring": {"loop": "cyclic", "aggregation": {}},
    "an ensemble": {"loop": "ensemble", "strategy": "local", "aggregation": {}},
}


@pytest.fixture(autouse=True)
def _plain() -> Iterator[None]:
    """USR1 as a shell leaves it."""
    before = signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGUSR1, before)


def ask() -> None:
    """Send this process USR1, as the launcher does, and go on when it has been heard."""
    os.kill(os.getpid(), signal.SIGUSR1)
    end = time.monotonic() + 10
    while not hear.asked() and time.monotonic() < end:
        threading.Event().wait(0.001)


def after(round: int) -> Callable[[dict[str, Any]], None]:
    return lambda line: ask() if line["round"] == round else None


def lines(folder: Path) -> list[dict[str, Any]]:
    return read_journal(folder / "journal.jsonl")


@pytest.mark.parametrize(
    ("kind", "round"), [*((kind, 1) for kind in KINDS), ("synchronous", 3), ("two passes", 3), ("own models", 3)]
)
def test_asked_in_any_round_and_resumed_it_is_the_run_that_was_never_asked(
    job: dict[str, Any], tmp_path: Path, kind: str, round: int
) -> None:
    """Line t is told in the middle of round t + 1, which is finished; with 4 rounds that may be the last one."""
    job |= FIXED | {"rounds": 4} | KINDS[kind]
    whole, cut = fedmpi.train(job, out=tmp_path / "whole"), tmp_path / "cut"
    with pytest.raises(Interrupted, match=rf"after round {round + 1} of 4, which is kept in .*cut") as stopped:
        fedmpi.train(job, out=cut, on_round=after(round))
    assert stopped.value.code == 75
    assert not (cut / "DONE").exists()
    assert not (cut / "model.safetensors").exists()
    assert max((cut / "checkpoints").glob("round-*")).name == f"round-{round + 1:06d}.safetensors"
    assert [line["round"] for line in lines(cut)] == list(range(1, round + 1))
    assert not [line for line in lines(cut) if "stopped" in line]
    resumed = fedmpi.train(job, out=cut, resume=True)
    assert torch.equal(weights(resumed), weights(whole))
    assert without_times(resumed.lines) == without_times(lines(cut)) == without_times(whole.lines)
    assert resumed.stopped == whole.stopped
    assert (cut / "DONE").exists()
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("kind", ["synchronous", "two passes", "a ring", "an ensemble"])
@pytest.mark.parametrize("who", [0, 2])
def test_one_rank_that_hears_it_is_enough(
    job: dict[str, Any], tmp_path: Path, kind: str, who: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    job |= FIXED | {"rounds": 4} | KINDS[kind]
    whole, cut = fedmpi.train(job), tmp_path / "cut"
    mine, now = threading.local(), [0]
    monkeypatch.setattr(hear, "asked", lambda: getattr(mine, "rank", None) == who and now[0] == 2)

    def work(comm: Fake) -> str:
        mine.rank = comm.me
        with pytest.raises(fedmpi.Refused) as stopped:
            fedmpi.train(job, comm, out=cut, on_round=lambda line: now.__setitem__(0, line["round"]))
        return str(stopped.value)

    told = launch(3, work)
    assert "of 4, which is kept" in told[0]
    assert told[1:] == ["", ""]
    monkeypatch.undo()
    resumed = fedmpi.train(job, out=cut, resume=True)
    assert torch.equal(weights(resumed), weights(whole))
    assert without_times(resumed.lines) == without_times(whole.lines)


def test_before_the_first_round_there_is_nothing_to_keep(job: dict[str, Any], tmp_path: Path) -> None:
    with hear.listening():
        ask()
        with pytest.raises(Interrupted, match="before round 1") as stopped:
            fedmpi.train(job, out=tmp_path / "run")
    assert stopped.value.code == 75
    assert not list((tmp_path / "run" / "checkpoints").glob("*"))
    assert fedmpi.train(job, out=tmp_path / "run", resume=True).stopped == "rounds"


def test_asked_at_the_start_of_a_resumed_run_it_stays_as_it_was(job: dict[str, Any], tmp_path: Path) -> None:
    whole, cut = fedmpi.train(job | FIXED), tmp_path / "cut"
    with pytest.raises(Interrupted):
        fedmpi.train(job | FIXED, out=cut, on_round=after(2))
    for _ in range(2):
        with hear.listening():
            ask()
            with pytest.raises(Interrupted, match="after round 3 of 5"):
                fedmpi.train(job | FIXED, out=cut, resume=True)
    resumed = fedmpi.train(job | FIXED, out=cut, resume=True)
    assert torch.equal(weights(resumed), weights(whole))
    assert without_times(resumed.lines) == without_times(whole.lines)


def test_a_target_met_in_that_round_ends_the_run_for_good(job: dict[str, Any], tmp_path: Path) -> None:
    job |= {"stop": {"accuracy": 0.0}}
    with hear.listening():
        run = fedmpi.train(job, out=tmp_path / "run", on_round=lambda line: ask())
    assert run.stopped == "accuracy 0 reached"
    assert (tmp_path / "run" / "DONE").exists()


def test_the_model_of_a_script_without_a_folder_is_not_kept_and_it_says_so(job: dict[str, Any]) -> None:
    with pytest.raises(Interrupted, match="after round 2 of 5, which is not kept"):
        fedmpi.train(job, on_round=after(1))
    assert fedmpi.train(job).stopped == "rounds"  # the next one begins unasked


@pytest.mark.parametrize("kind", ["pooled", "local"])
def test_a_baseline_is_begun_anew(job: dict[str, Any], tmp_path: Path, kind: str) -> None:
    with hear.listening():
        ask()
        with pytest.raises(Interrupted, match="begun anew") as stopped:
            baseline(read(job), None, kind, tmp_path)
    assert stopped.value.code == 75
    assert not list(tmp_path.rglob("model.safetensors"))
    baseline(read(job), None, kind, tmp_path)
