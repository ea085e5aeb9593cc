"""npz archives: names, splits, images, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedmpi.data import ShardError
from fedmpi.data.importers import npz
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
