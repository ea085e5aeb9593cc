"""npz archives: names, splits, images, and what is refused."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmpi.data import ShardError
from fedmpi.data.importers import npz
from fedmpi.data.importers.archive import read_archive
from fedmpi.job import JobError

X, Y = np.arange(12.0).reshape(6, 2), np.array([3, 5, 3, 5, 9, 9])


def stored(tmp_path: Path, **arrays: Any) -> Path:
    np.savez(tmp_path / "set.npz", **arrays)
    return tmp_path / "set.npz"


def test_arrays_by_name(tmp_path: Path) -> None:
    path = stored(tmp_path, data=X, label=Y, more=X[:1], less=Y[:1], who=np.arange(6))
    columns = npz(path, x="data", y="label", test_x="more", test_y="less", group="who")
    np.testing.assert_array_equal(columns.x, X)
    assert columns.y.tolist() == [0, 1, 0, 1, 2, 2]
    assert columns.classes == ("3", "5", "9")
    assert columns.test is not None
    assert columns.test[1].tolist() == [0]
    assert columns.groups is not None
    assert columns.groups.tolist() == list(range(6))
    assert columns.scale == 1


def test_nothing_but_examples(tmp_path: Path) -> None:
    columns = npz(stored(tmp_path, x=X, y=Y / 2))
    assert (columns.task, columns.test, columns.groups) == ("regression", None, None)


@pytest.mark.parametrize(("shape", "kept"), [((6, 4, 4), (1, 4, 4)), ((6, 3, 4, 4), (3, 4, 4))])
def test_bytes_are_images(tmp_path: Path, shape: tuple[int, ...], kept: tuple[int, ...]) -> None:
    path = stored(tmp_path, x=np.zeros(shape, np.uint8), y=Y, x_test=np.zeros(shape, np.uint8), y_test=Y)
    columns = npz(path)
    assert columns.x.shape[1:] == kept
    assert columns.test is not None
    assert columns.test[0].shape[1:] == kept
    assert columns.scale == 1 / 255
    assert npz(path, scale=1.0).scale == 1


@pytest.mark.parametrize(
    ("arrays", "options", "error", "message"),
    [
        ({"x": X}, {}, JobError, r"y: 'y' given; .*set.npz holds x"),
        ({"x": X, "y": Y}, {"group": "who"}, JobError, "group: 'who' given"),
        ({"x": X, "y": Y, "x_test": X}, {}, JobError, "test_x, test_y: 'x_test' and 'y_test' given"),
        ({"x": X, "y": Y}, {"test_x": "a", "test_y": "b"}, JobError, "'a' and 'b' given"),
        ({"x": X, "y": Y[:3]}, {}, ShardError, r"x has shape \(6, 2\), y \(3,\)"),
        ({"x": X[:0], "y": Y[:0]}, {}, ShardError, "x has shape"),
        ({"x": X, "y": np.array(1)}, {}, ShardError, "x has shape"),
        ({"x": X, "y": Y, "client": Y[:2]}, {}, ShardError, r"client has shape \(2,\); should be \(6,\)"),
        ({"x": X, "y": Y, "x_test": X[:, :1], "y_test": Y}, {}, ShardError, r"x_test is \(1,\) per example"),
        ({"x": X, "y": Y}, {"task": "binary"}, ShardError, "holds 3 classes"),
    ],
)
def test_what_cannot_be(
    tmp_path: Path, arrays: dict[str, Any], options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        npz(stored(tmp_path, **arrays), **options)


def test_no_archive(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="there is no file"):
        npz(tmp_path / "set.npz")
    for content in (b"", b"text", b"PK\3\4", b"\x93NUMPY"):
        (tmp_path / "set.npz").write_bytes(content)
        with pytest.raises(ShardError, match="cannot be read as an npz archive"):
            npz(tmp_path / "set.npz")
    np.save(tmp_path / "one.npy", X)
    with pytest.raises(ShardError, match="cannot be read as an npz archive"):
        npz(tmp_path / "one.npy")
    with pytest.raises(ShardError, match="plain arrays"):
        npz(stored(tmp_path, x=np.array([{}]), y=np.array([1])))


def packed(compressed: bool) -> bytes:
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, x=X, y=Y, x_test=X[:2], y_test=Y[:2])
    return file.getvalue()


@settings(derandomize=True, database=None, deadline=None, max_examples=150)
@given(data=st.data(), compressed=st.booleans())
def test_a_flipped_bit_is_found_or_harmless(data: Any, compressed: bool, tmp_path_factory: Any) -> None:
    """One line, whatever the bit was; nothing else than what was written is ever given."""
    content = bytearray(packed(compressed))
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path_factory.mktemp("npz") / "set.npz"
    path.write_bytes(content)
    try:
        columns = npz(path)
    except (ShardError, JobError) as error:
        told = str(error)
    else:
        told = None
    if told is not None:
        assert "\n" not in told
        return
    np.testing.assert_array_equal(columns.x, X)
    assert columns.test is not None


@settings(derandomize=True, database=None, deadline=None, max_examples=50)
@given(dtype=st.sampled_from(["u1", ">i4", "f2", "f8", "U3", "S2", "?"]), fortran=st.booleans(), flat=st.booleans())
def test_arrays_are_read_as_numpy_reads_them(dtype: str, fortran: bool, flat: bool, tmp_path_factory: Any) -> None:
    values = (
        np.arange(6).astype(dtype)
        if flat
        else np.asarray(np.arange(12).reshape(3, 4).astype(dtype), order="FC"[fortran])
    )
    path = tmp_path_factory.mktemp("npz") / "set.npz"
    np.savez(path, x=values)
    np.testing.assert_array_equal(read_archive(path)["x"], np.load(path)["x"], strict=True)


def test_a_header_that_claims_too_much_takes_no_memory(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (2**50,)})
    with zipfile.ZipFile(tmp_path / "set.npz", "w") as archive:
        archive.writestr("x.npy", header.getvalue() + bytes(80))
    with pytest.raises(ShardError, match="does not hold the shape"):
        npz(tmp_path / "set.npz")


def test_what_is_wrong_is_told_as_what_it_is(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", X)
    with pytest.raises(ShardError, match=r"it is one array, as np\.save writes it; np\.savez\("):
        npz(tmp_path / "one.npy")
    with pytest.raises(ShardError, match="is an archive without any array"):
        npz(stored(tmp_path))
    with pytest.raises(ShardError, match=r"x has shape \(0, 2\), y \(0,\): there is no example"):
        npz(stored(tmp_path, x=X[:0], y=Y[:0]))
    with pytest.raises(ShardError, match="x.npy holds Python objects"):
        npz(stored(tmp_path, x=np.array([{}]), y=Y))
    with pytest.raises(ShardError, match="y: holds complex128"):
        npz(stored(tmp_path, x=X, y=Y * 1j), task="regression")
    with pytest.raises(ShardError, match="y: 1 of 6 rows hold NaN"):
        npz(stored(tmp_path, x=X, y=np.array([0, 1, 0, 1, 0, np.nan])), task="classification")
