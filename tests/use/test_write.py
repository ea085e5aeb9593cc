"""Predictions to a file: places that cannot be written."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedmpi.flow import Refused
from fedmpi.job import JobError
from fedmpi.use.load import Trained
from fedmpi.use.predict import predictions


def test_places_that_cannot_be_written(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "new.npy", np.zeros((2, 5), np.float32))
    for out, fault in (("none/a.csv", "none: there is no such folder"), ("new.npy/a.csv", "is not a folder")):
        with pytest.raises(Refused, match=fault):
            predictions(trained, tmp_path / "new.npy", tmp_path / out)
    with pytest.raises(JobError, match=r"end it in \.csv or \.npz"):
        predictions(trained, tmp_path / "new.npy", tmp_path / "a.txt")
    (tmp_path / "a.csv").write_text("before")

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(Refused, match=r"a\.csv: cannot be written: No space left on device"):
        predictions(trained, tmp_path / "new.npy", tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "new.npy"]
