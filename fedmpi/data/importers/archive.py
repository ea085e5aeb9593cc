"""NumPy archives: arrays by name in one .npz file."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from fedmpi.data.columns import Array, Columns, Kind, shown, targets
from fedmpi.data.errors import ShardError
from fedmpi.job import JobError


def npz(
    source: Path,
    x: str = "x",
    y: str = "y",
    test_x: str = "x_test",
    test_y: str = "y_test",
    group: str | None = None,
    task: Kind | None = None,
    scale: float | None = None,
) -> Columns:
    """Arrays `x (N, ...)` and `y (N, ...)`, a test split of their own where both its names are there.

    `group` names the array that says whose each example is; one called `client` needs no naming.  Bytes of shape
    (N, H, W) are grey images and stored as (1, H, W); byte images have scale 1/255 unless `scale` says otherwise;
    images are channels first, as everywhere in PyTorch.  Integer or text targets are classes.
    """
    arrays = _read(source)
    tests = [name for name in (test_x, test_y) if name in arrays]
    if len(tests) == 1 or (not tests and (test_x, test_y) != ("x_test", "y_test")):
        raise JobError(f"test_x, test_y: {test_x!r} and {test_y!r} given; {source} holds {shown(list(arrays))}")
    named = {"x": x, "y": y} | ({} if group is None else {"group": group})
    for option, name in named.items():
        if name not in arrays:
            raise JobError(f"{option}: {name!r} given; {source} holds {shown(list(arrays))}")
    examples, raw = _pair(source, arrays, x, y)
    test = _pair(source, arrays, test_x, test_y) if tests else None
    if test is not None and test[0].shape[1:] != examples.shape[1:]:
        raise ShardError(f"{source}: {test_x} is {test[0].shape[1:]} per example, {x} {examples.shape[1:]}")
    groups = arrays.get("client" if group is None else group)
    if groups is not None and groups.shape != (len(examples),):
        raise ShardError(f"{source}: {group or 'client'} has shape {groups.shape}; should be ({len(examples)},)")
    (targets_, y_test), kind, classes = targets(f"{source}: {y}", raw, None if test is None else test[1], task)
    is_image = examples.dtype == np.uint8 and examples.ndim in (3, 4)
    return Columns(
        x=_image(examples),
        y=targets_,
        task=kind,
        classes=classes,
        test=None if test is None else (_image(test[0]), y_test),
        groups=groups,
        scale=scale if scale is not None else (1 / 255 if is_image else 1.0),
    )


def _read(source: Path) -> dict[str, Array]:
    try:
        with np.load(source, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise JobError(f"source: there is no file {source}") from None
    except (OSError, ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise ShardError(f"{source}: cannot be read as an npz archive of plain arrays: {error}") from None


def _pair(source: Path, arrays: dict[str, Array], x: str, y: str) -> tuple[Array, Array]:
    examples, values = arrays[x], arrays[y]
    if not examples.ndim or not values.ndim or len(examples) != len(values) or not len(examples):
        raise ShardError(f"{source}: {x} has shape {examples.shape}, {y} {values.shape}; should be as many of both")
    return examples, values


def _image(x: Array) -> Array:
    return x[:, None] if x.dtype == np.uint8 and x.ndim == 3 else x
