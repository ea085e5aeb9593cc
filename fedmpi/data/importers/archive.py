"""NumPy archives: arrays by name in one .npz file."""

from __future__ import annotations

import math
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated

import numpy as np
from numpy.lib import format as format_
from pydantic import Field

from fedmpi.data.columns import Array, Columns, Kind, shown, targets
from fedmpi.data.errors import ShardError
from fedmpi.job import JobError


def npz(
    source: Annotated[Path, Field(description="the archive")],
    x: Annotated[str, Field(description="the array of examples, (N, ...)")] = "x",
    y: Annotated[str, Field(description="the array of their targets, (N, ...)")] = "y",
    test_x: Annotated[str, Field(description="the array of test examples")] = "x_test",
    test_y: Annotated[str, Field(description="the array of their targets")] = "y_test",
    group: Annotated[str | None, Field(description="the array of clients, (N,), for --partition natural")] = None,
    task: Annotated[Kind | None, Field(description="what the targets are for, where their type does not say")] = None,
    scale: Annotated[
        float | None, Field(description="what x is multiplied with for the model; 1/255 for bytes")
    ] = None,
) -> Columns:
    """Arrays of a NumPy archive: examples, targets, and a test split where both its names are there.

    `source` is the .npz file.  `x` names its array of examples, (N, ...), `y` that of their targets, (N, ...).
    `test_x` and `test_y` name those of the test split.  `group` names the array of each example's owner; one called
    `client` needs no naming.  `task` is for targets with a type that leaves it open.  Bytes of shape (N, H, W) are grey
    images and stored as (1, H, W); byte images have scale 1/255 unless `scale` says otherwise; images are channels
    first, as everywhere in PyTorch.  Integer or text targets are classes.
    """
    arrays = read_archive(source)
    if not arrays:
        raise ShardError(f"{source}: is an archive without any array; np.savez(FILE, x=..., y=...) writes some")
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
    if groups is not None and groups.dtype.kind not in "biuSU":
        raise ShardError(f"{source}: {group or 'client'} holds {groups.dtype}; should be whole numbers or text")
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


def read_archive(source: Path) -> dict[str, Array]:
    """Return an archive's arrays by name; JobError without a file, ShardError for one without plain arrays."""
    if not source.is_file():
        raise JobError(f"source: there is no file {source}")
    kind = "an npz archive of plain arrays"
    with source.open("rb") as file:
        if file.read(len(format_.MAGIC_PREFIX)) == format_.MAGIC_PREFIX:
            fault = "it is one array, as np.save writes it; np.savez(FILE, x=..., y=...) writes an archive"
            raise ShardError(f"{source}: cannot be read as {kind}: {fault}")
    with _explained(source, kind), zipfile.ZipFile(source) as archive:
        arrays = {}
        for member in archive.infolist():
            with archive.open(member) as inner:
                arrays[member.filename.removesuffix(".npy")] = _plain(inner, member.file_size, member.filename)
        return arrays


def single(source: Path) -> Array:
    """Return the one array of a .npy file; ShardError for any other file."""
    with _explained(source, "a plain array"), source.open("rb") as file:
        return _plain(file, source.stat().st_size, source.name)


@contextmanager
def _explained(source: Path, kind: str) -> Iterator[None]:
    """Raise the errors of zipfile, zlib, NumPy and Python's own parser at a damaged file as one line, a ShardError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what they think of a damaged header
            yield
    except Exception as error:
        fault = " ".join(str(error).split("\n")[0].split())[:200] or type(error).__name__
        raise ShardError(f"{source}: cannot be read as {kind}: {fault}") from None


def _plain(file: IO[bytes], length: int, name: str) -> Array:
    """Return an array as NumPy writes one, read to its end: there its checksum is, and a header only claims a size."""
    version = format_.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"{name} is of version {version}")
    header = format_.read_array_header_1_0 if version == (1, 0) else format_.read_array_header_2_0
    shape, fortran, dtype = header(file)
    if dtype.hasobject:
        raise ValueError(f"{name} holds Python objects, which are never opened")
    size = math.prod(shape) * dtype.itemsize
    if any(side < 0 for side in shape) or not dtype.itemsize or size != length - file.tell():
        raise ValueError(f"{name} does not hold the shape {shape} that its header tells")
    data = file.read()
    if len(data) != size:
        raise ValueError(f"{name} is cut short")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")


def _pair(source: Path, arrays: dict[str, Array], x: str, y: str) -> tuple[Array, Array]:
    examples, values = arrays[x], arrays[y]
    shapes = f"{source}: {x} has shape {examples.shape}, {y} {values.shape}"
    if not examples.ndim or not values.ndim or len(examples) != len(values):
        raise ShardError(f"{shapes}; should be as many of both")
    if not examples.size:
        raise ShardError(
            f"{shapes}: there is no example" if not len(examples) else f"{shapes}: an example holds no value"
        )
    return examples, values


def _image(x: Array) -> Array:
    return x[:, None] if x.dtype == np.uint8 and x.ndim == 3 else x
