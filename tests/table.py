"""Tables as CSV files, and the predictions for them."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np

from fedmpi.use.load import Trained
from fedmpi.use.predict import predictions

COLOURS = ("blue", "green", "red")


def lay(path: Path, rows: list[Any]) -> Path:
    """Write rows as a CSV file, and return its path."""
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def probabilities(trained: Trained, source: Path, tmp_path: Path) -> Any:
    """Return the probabilities `(n, classes)` that a trained model writes for the examples of `source`."""
    predictions(trained, source, tmp_path / "said.npz")
    with np.load(tmp_path / "said.npz") as columns:
        return columns["probability"]
