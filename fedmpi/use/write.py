"""The writing of predictions to a file."""

from __future__ import annotations

import csv
import os
import secrets
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from fedmpi.flow import Refused
from fedmpi.job import JobError


def check(out: Path) -> None:
    """Raise Refused for a file that cannot be written, JobError for a wrong suffix, before anything is computed."""
    if out.suffix not in (".csv", ".npz"):
        raise JobError(f"--out {out}: end it in .csv or .npz")
    if not out.parent.is_dir():
        fault = "is not a folder" if os.path.lexists(out.parent) else "there is no such folder; make it first"
        raise Refused(f"--out {out}: {out.parent}: {fault}")
    if out.is_dir():
        raise Refused(f"--out {out}: is a folder; name a file")


def write(out: Path, columns: dict[str, NDArray[Any]], classes: tuple[str, ...]) -> None:
    """Write predictions as .npz or .csv, aside and then renamed: after any failure `out` is as it was."""
    aside = out.with_name(f".{out.name}.{secrets.token_hex(6)}")
    try:
        if out.suffix == ".npz":
            with aside.open("wb") as archive:
                np.savez(archive, **columns)  # type: ignore[arg-type]  # numpy's stub has allow_pickle among the names
        else:
            with aside.open("w", newline="", encoding="utf-8") as file:
                _write_csv(file, columns, classes)
        os.replace(aside, out)
    except OSError as error:
        raise Refused(f"--out {out}: cannot be written: {error.strerror or error}") from None
    finally:
        aside.unlink(missing_ok=True)


def _write_csv(file: IO[str], columns: dict[str, NDArray[Any]], classes: tuple[str, ...]) -> None:
    """Write a line per example: the prediction (a class by its name), then each class's probability."""
    prediction = columns["prediction"]
    rows = prediction.reshape(len(prediction), -1)
    names = ["prediction"] if rows.shape[1] == 1 else [f"prediction_{place}" for place in range(rows.shape[1])]
    probability = columns.get("probability")
    named = classes and probability is not None
    writer = csv.writer(file)
    writer.writerow([*names, *(f"p({name})" for name in classes if probability is not None)])
    for place, row in enumerate(rows):
        values = [classes[int(value)] for value in row] if named else [value.item() for value in row]
        chances = [] if probability is None else [f"{value:.6g}" for value in probability[place]]
        writer.writerow([*values, *chances])
