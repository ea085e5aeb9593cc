"""A profiled run: the same bits, and a trace in which every rank's time is told once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import fedmpi
from fedmpi.flow import Refused
from fedmpi.records import profile
from fedmpi.report.page import write_report
from fedmpi.report.timeline import middle_round
from tests.rounds.test_run import FIXED, on, weights, without_times

Event = dict[str, Any]


def spans(folder: Path, rank: int, track: str) -> list[Event]:
    events = json.loads((folder / "profile" / f"rank-{rank}.json").read_text())
    return [event for event in events if event["ph"] == "X" and profile.TRACKS[event["tid"]] == track]


@pytest.mark.parametrize("ranks", [1, 3])
@pytest.mark.parametrize("engine", ["sequential", "batched"])
def test_every_round_phase_and_client_is_told_once(
    job: dict[str, Any], tmp_path: Path, ranks: int, engine: str
) -> None:
    job |= FIXED | {"rounds": 4, "local": job["local"] | {"engine": engine}}
    plain = on(ranks, job, out=tmp_path / "plain")[0]
    run = on(ranks, job, out=tmp_path / "run", profile=True)[0]
    assert torch.equal(weights(run), weights(plain))
    assert without_times(run.lines) == without_times(plain.lines)
    assert not (tmp_path / "plain" / "profile").exists()
    trained: dict[int, list[str]] = {}
    for rank in range(ranks):
        rounds = spans(tmp_path / "run", rank, "rounds")
        assert [event["args"]["round"] for event in rounds] == [1, 2, 3, 4]
        phases = spans(tmp_path / "run", rank, "phases")
        for event in rounds:
            own = [phase for phase in phases if phase["args"]["round"] == event["args"]["round"]]
            names = ["broadcast", "prepare", "train", "reduce", *(["step"] if rank == 0 else [])]
            assert [phase["name"] for phase in own] == names
            assert own[0]["ts"] == event["ts"]
            ends = [phase["ts"] + phase["dur"] for phase in own]
            assert all(abs(end - later["ts"]) < 1 for end, later in zip(ends, own[1:], strict=False))
            assert ends[-1] <= event["ts"] + event["dur"] + 1
            if rank == 0 and event["args"]["round"] < 4:
                line = run.lines[event["args"]["round"] - 1]
                assert (ends[-1] - event["ts"]) / 1e6 == pytest.approx(line["seconds"]["total"], abs=1e-4)
        collectives = [event["name"] for event in spans(tmp_path / "run", rank, "collectives")]
        assert collectives.count("broadcast") >= 5
        assert collectives.count("reduce") == 5  # the last sums the final scores
        for event in spans(tmp_path / "run", rank, "clients"):
            if event["name"] != "add":
                at = next(r["args"]["round"] for r in rounds if r["ts"] <= event["ts"] <= r["ts"] + r["dur"])
                trained.setdefault(at, []).extend(event["args"]["clients"])
    for line in run.lines:
        names = trained[line["round"]]
        assert len(names) == len(set(names)) == line["clients"]
    checkpoints = spans(tmp_path / "run", 0, "checkpoints")
    assert checkpoints
    assert not any(spans(tmp_path / "run", rank, "checkpoints") for rank in range(1, ranks))


def test_the_traces_of_all_ranks_are_one_file_too(job: dict[str, Any], tmp_path: Path) -> None:
    on(3, job | {"rounds": 2}, out=tmp_path / "run", profile=True)
    folder = tmp_path / "run" / "profile"
    each = [event for rank in range(3) for event in json.loads((folder / f"rank-{rank}.json").read_text())]
    assert json.loads((folder / profile.MERGED).read_text()) == each
    assert {event["pid"] for event in each} == {0, 1, 2}


def test_a_full_trace_says_so(
    job: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(profile.Profile.__init__, "__defaults__", (20,))
    fedmpi.train(job | {"rounds": 3}, out=tmp_path / "run", profile=True)
    events = json.loads((tmp_path / "run" / "profile" / "rank-0.json").read_text())
    assert sum(event["ph"] == "X" for event in events) == 20
    assert events[-1]["name"] == profile.FULL
    assert "a rank's trace is full" in capsys.readouterr().err


def test_a_run_that_fails_leaves_its_trace(job: dict[str, Any], tmp_path: Path) -> None:
    def fails(line: dict[str, Any]) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        fedmpi.train(job, out=tmp_path / "run", on_round=fails, profile=True)
    assert spans(tmp_path / "run", 0, "rounds")


def test_an_earlier_launch_s_traces_give_way(job: dict[str, Any], tmp_path: Path) -> None:
    on(3, job | {"rounds": 2}, out=tmp_path / "run", profile=True)
    on(2, job | {"rounds": 4}, out=tmp_path / "run", resume=True, profile=True)
    files = sorted(file.name for file in (tmp_path / "run" / "profile").iterdir())
    assert files == ["rank-0.json", "rank-1.json", "trace.json"]
    assert [event["args"]["round"] for event in spans(tmp_path / "run", 1, "rounds")] == [3, 4]


def test_a_profile_needs_a_folder(job: dict[str, Any]) -> None:
    with pytest.raises(Refused, match="give out"):
        fedmpi.train(job, profile=True)


def test_a_trace_that_cannot_be_written_costs_no_run(
    job: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def blocks(line: dict[str, Any]) -> None:
        (tmp_path / "run" / "profile").touch()

    fedmpi.train(job, out=tmp_path / "run", on_round=blocks, profile=True)
    assert (tmp_path / "run" / "DONE").exists()
    assert "could not be written" in capsys.readouterr().err


def test_the_report_shows_the_round_of_median_length(job: dict[str, Any], tmp_path: Path) -> None:
    on(3, job | {"rounds": 6}, out=tmp_path / "run", profile=True)
    found = middle_round(tmp_path / "run" / "profile")
    assert found is not None
    rounds = spans(tmp_path / "run", 0, "rounds")[1:]
    assert found.seconds == pytest.approx(sorted(event["dur"] for event in rounds)[len(rounds) // 2] / 1e6)
    assert found.ranks == [0, 1, 2]
    assert {"broadcast", "prepare", "train", "reduce", "step"} <= {bar[2] for bar in found.bars if bar[0] == 0}
    page = write_report([tmp_path / "run"])
    assert (page.parent / "pictures" / "a-round-on-every-rank.png").exists()
    assert f"Round {found.round}, of median length" in page.read_text()


@pytest.mark.parametrize("text", ["", "[", "[{}]", '{"a": 1}', '[{"ph": "X", "tid": 77}]', "[1]"])
def test_a_damaged_trace_is_refused_by_name(job: dict[str, Any], tmp_path: Path, text: str) -> None:
    fedmpi.train(job | {"rounds": 2}, out=tmp_path / "run", profile=True)
    (tmp_path / "run" / "profile" / "rank-0.json").write_text(text)
    with pytest.raises(Refused, match="rank-0.json: is not a rank's trace"):
        write_report([tmp_path / "run"])
