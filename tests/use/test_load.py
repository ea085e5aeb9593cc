"""A model out of its run folder: one of another round, and one that no run wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import fedmpi
from fedmpi.flow import Refused
from fedmpi.records.checkpoint import write_tensors
from fedmpi.use.load import load


def test_a_model_of_another_round_is_told(moved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = moved / "run" / "checkpoints"
    (kept / "round-000001.safetensors").rename(kept / "round-000002.safetensors")
    load(moved / "run")
    assert "is the model of round 1, and the run has gone on to round 2 since" in capsys.readouterr().err


def test_the_model_of_a_run_that_broke_off_is_told(job: dict[str, Any], tmp_path: Path, capsys: Any) -> None:
    """Its scores are those of the last round that was finished, here of none."""
    with pytest.raises(Refused, match="no round was finished"):
        fedmpi.train(job | {"local": {"lr": 1e30}}, out=tmp_path / "run")
    capsys.readouterr()
    load(tmp_path / "run")
    assert "is the model of round 0, after which the run broke off" in capsys.readouterr().err


def test_a_model_that_no_run_wrote_is_refused(moved: Path) -> None:
    write_tensors(moved / "run" / "model.safetensors", {}, {"round": 1})
    with pytest.raises(Refused, match="is no model that a run wrote"):
        load(moved / "run")
