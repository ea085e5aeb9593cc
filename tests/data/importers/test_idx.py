"""idx files: written here byte by byte, read back; what is not one is refused by name."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedmpi.data import ShardError
from fedmpi.data.importers.idx import idx, read_idx
from fedmpi.job import JobError

CODES = {"u1": 8, "i1": 9, "i2": 11, "i4": 12, "f4": 13, "f8": 14}
X = np.random.default_rng(0).integers(0, 256, (6, 4, 5), dtype=np.uint8)
Y = np.array([0, 1, 2, 2, 1, 0], dtype=np.uint8)


def content(values: NDArray[Any]) -> bytes:
    code = CODES[f"{values.dtype.kind}{values.dtype.itemsize}"]
    header = struct.pack(f">BBBB{values.ndim}I", 0, 0, code, values.ndim, *values.shape)
    return header + values.astype(values.dtype.newbyteorder(">")).tobytes()


def store(
    folder: Path, name: str, x: NDArray[Any] = X, y: NDArray[Any] = Y, dot: str = "-", packed: bool = False
) -> None:
    for kind, values, dimensions in (("images", x, 3), ("labels", y, 1)):
        path = folder / f"{name}-{kind}{dot}idx{dimensions}-ubyte{'.gz' if packed else ''}"
        path.write_bytes(gzip.compress(content(values)) if packed else content(values))


@settings(derandomize=True, database=None, deadline=None, max_examples=50)
@given(
    dtype=st.sampled_from(sorted(CODES)),
    shape=st.lists(st.integers(0, 4), min_size=1, max_size=4),
    packed=st.booleans(),
)
def test_what_is_written_is_read(dtype: str, shape: list[int], packed: bool, tmp_path_factory: Any) -> None:
    values = (np.arange(np.prod(shape)) % 100).astype(dtype).reshape(shape)
    path = tmp_path_factory.mktemp("idx") / ("file.gz" if packed else "file")
    path.write_bytes(gzip.compress(content(values)) if packed else content(values))
    np.testing.assert_array_equal(read_idx(path), values, strict=True)


@settings(derandomize=True, database=None, deadline=None, max_examples=100)
@given(length=st.integers(0, len(content(X)) - 1), packed=st.booleans())
def test_a_truncated_file_is_refused(length: int, packed: bool, tmp_path_factory: Any) -> None:
    path = tmp_path_factory.mktemp("idx") / ("file.gz" if packed else "file")
    path.write_bytes(gzip.compress(content(X), mtime=0)[: length or None][:-1] if packed else content(X)[:length])
    with pytest.raises(ShardError, match="file"):
        read_idx(path)


@pytest.mark.parametrize("dot", ["-", "."])
@pytest.mark.parametrize("packed", [False, True])
def test_a_folder_like_mnist(tmp_path: Path, dot: str, packed: bool) -> None:
    store(tmp_path, "train", dot=dot, packed=packed)
    store(tmp_path, "t10k", X[:2], Y[:2], dot=dot, packed=packed)
    columns = idx(tmp_path)
    np.testing.assert_array_equal(columns.x, X[:, None], strict=True)
    np.testing.assert_array_equal(columns.y, Y)
    assert columns.test is not None
    np.testing.assert_array_equal(columns.test[0], X[:2, None])
    np.testing.assert_array_equal(columns.test[1], Y[:2])
    assert (columns.scale, columns.classes, columns.task) == (1 / 255, ("0", "1", "2"), "classification")


def test_labels_from_one_and_a_prefix(tmp_path: Path) -> None:
    store(tmp_path, "emnist-letters-train", y=Y + 1)
    store(tmp_path, "emnist-digits-train")
    columns = idx(tmp_path, prefix="emnist-letters-")
    assert columns.classes == ("1", "2", "3")
    np.testing.assert_array_equal(columns.y, Y)
    assert columns.test is None


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="nowhere is not a folder"):
        idx(tmp_path / "nowhere")
    with pytest.raises(JobError, match="holds no train-images-idx3-ubyte"):
        idx(tmp_path)
    store(tmp_path, "train")
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(ShardError, match="train-images-idx3-ubyte has no labels file"):
        idx(tmp_path)


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    store(tmp_path, "train", y=Y[:5])
    with pytest.raises(ShardError, match=r"\(6, 4, 5\) images for \(5,\) labels"):
        idx(tmp_path)
    store(tmp_path, "train")
    store(tmp_path, "t10k", X[:, :3])
    with pytest.raises(ShardError, match=r"test images are \(1, 3, 5\), training images \(1, 4, 5\)"):
        idx(tmp_path)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(b"PK\3\4 something else")
    with pytest.raises(ShardError, match="is not an idx file"):
        idx(tmp_path)


@settings(derandomize=True, database=None, deadline=None, max_examples=150)
@given(place=st.integers(0, 10**6), bit=st.integers(0, 7), packed=st.booleans())
def test_a_flipped_bit_is_one_line(place: int, bit: int, packed: bool, tmp_path_factory: Any) -> None:
    """A packed file has a checksum of its own; a plain one has none, but says its shape."""
    path = tmp_path_factory.mktemp("idx") / ("file.gz" if packed else "file")
    whole = bytearray(gzip.compress(content(X), mtime=0) if packed else content(X))
    whole[place % len(whole)] ^= 1 << bit
    path.write_bytes(whole)
    try:
        values = read_idx(path)
    except ShardError as error:
        told = str(error)
    else:
        told = None
    if told is not None:
        assert "\n" not in told
        return
    assert np.array_equal(values, X) if packed else values.size == X.size


@pytest.mark.parametrize("shape", [(0, 2**32 - 1, 2**32 - 1), (2**32 - 1,) * 3, (0,) * 100])
def test_a_header_that_claims_too_much_is_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape))
    with pytest.raises(ShardError, match="header tells"):
        read_idx(tmp_path / "file")
