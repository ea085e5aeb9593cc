"""Targets as they come, and as they are stored."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmpi.data import ShardError
from fedmpi.data.columns import finite, shown, targets


@settings(derandomize=True, database=None, deadline=None)
@given(
    train=st.lists(st.integers(-50, 50), min_size=1),
    test=st.lists(st.integers(-50, 50)),
    text=st.booleans(),
)
def test_codes_lead_back_to_labels(train: list[int], test: list[int], text: bool) -> None:
    given_ = [np.array(part, dtype=int).astype(str if text else int) for part in (train, test)]
    codes, task, classes = targets("here", given_[0], given_[1], None)
    assert task == "classification"
    for raw, part in zip(given_, codes, strict=True):
        assert [classes[code] for code in part] == [str(label) for label in raw]
    assert len(set(classes)) == len(classes) == len(set(train) | set(test))


def test_labels_from_zero_keep_their_numbers() -> None:
    (codes, _), _, classes = targets("here", np.array([2, 0, 1, 2], np.uint8), None, None)
    assert codes.tolist() == [2, 0, 1, 2]
    assert classes == ("0", "1", "2")


@pytest.mark.parametrize("width", [0, 2])
def test_a_test_split_of_another_shape_is_refused(width: int) -> None:
    with pytest.raises(ShardError, match=rf"shape \({width},\) per example, those of the test split \(\)"):
        targets("here", np.zeros((6, width), dtype=int), np.array([1, 0]), None)


def test_floats_are_for_regression_unless_told() -> None:
    (y, _), task, classes = targets("here", np.array([[1.5], [2.0]]), None, None)
    assert (y.dtype, y.shape, task, classes) == (np.float32, (2,), "regression", ())
    (y, _), task, classes = targets("here", np.array([1.0, 2.0]), None, "binary")
    assert (y.tolist(), task, classes) == ([0, 1], "binary", ("1", "2"))
    (y, _), task, _ = targets("here", np.array([1, 2]), None, "regression")
    assert (y.dtype, task) == (np.float32, "regression")


def test_targets_that_cannot_be() -> None:
    with pytest.raises(ShardError, match="here: holds text, such as 'a'"):
        targets("here", np.array(["a"]), None, "regression")
    with pytest.raises(ShardError, match="here: holds 3 classes"):
        targets("here", np.arange(3), None, "binary")
    with pytest.raises(ShardError, match="one label per example"):
        targets("here", np.zeros((2, 2), int), None, None)


def test_long_lists_are_cut() -> None:
    assert shown(["a", "b"]) == "a, b"
    assert shown([str(number) for number in range(20)], 2) == "0, 1, ... (20 in all)"


def test_rows_that_are_not_finite_are_counted() -> None:
    x = np.zeros((5, 2, 2), np.float32)
    finite("here", x)
    finite("here", x[:0])
    finite("here", np.zeros(3, np.int64))
    x[1] = np.nan
    x[3, 0, 1] = np.inf
    with pytest.raises(ShardError, match="here: 2 of 5 rows hold NaN or infinity; leave these rows out"):
        finite("here", x)
