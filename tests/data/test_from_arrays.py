"""Arrays that one already has: what is inferred, what is refused, with the client's name."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fedmpi
from fedmpi.data import ShardError, write_shards
from fedmpi.data.from_arrays import Chained
from fedmpi.data.importers import csv
from fedmpi.job import JobError
from tests.data import shard_sets

X = np.zeros((5, 2), np.float32)
Y = np.array([0, 1, 2, 1, 0])


@settings(derandomize=True, database=None, deadline=None)
@given(sizes=st.lists(st.integers(0, 6), min_size=1, max_size=6).filter(any), data=st.data())
def test_chained_arrays_are_their_concatenation(sizes: list[int], data: st.DataObject) -> None:
    whole = np.arange(sum(sizes) * 2).reshape(-1, 2)
    chained = Chained(np.split(whole, np.cumsum(sizes)[:-1]))
    rows = np.array(data.draw(st.lists(st.integers(0, sum(sizes) - 1), min_size=1)))
    np.testing.assert_array_equal(chained[rows], whole[rows])
    assert chained.shape == whole.shape


@pytest.mark.parametrize(
    ("y", "task", "told", "classes", "dtype"),
    [
        (Y, None, "classification", ("0", "1", "2"), "int64"),
        (Y.astype(np.uint8), None, "classification", ("0", "1", "2"), "int64"),
        (Y > 0, None, "classification", ("0", "1"), "int64"),
        (Y > 0, "binary", "binary", ("0", "1"), "int64"),
        (Y * 0, "binary", "binary", ("0", "1"), "int64"),
        (Y / 3, None, "regression", (), "float64"),
        (np.float16(Y), None, "regression", (), "float32"),
        (Y, "regression", "regression", (), "float32"),
        (Y, "package.module:Task", "package.module:Task", ("0", "1", "2"), "int64"),
    ],
)
def test_what_the_targets_say(
    tmp_path: Path, y: Any, task: str | None, told: str, classes: tuple[str, ...], dtype: str
) -> None:
    shards = write_shards(tmp_path, {"a": (X, y)}, task=task, holdout=0)
    assert (shards.task, shards.classes) == (told, classes)
    assert str(shards.train(0)[1].numpy().dtype) == dtype
    np.testing.assert_array_equal(shards.train(0)[1].numpy(), np.asarray(y, dtype))


@pytest.mark.parametrize(
    ("given_", "kept"), [("bool", "uint8"), (">f4", "float32"), ("uint16", "int32"), ("f2", "float16")]
)
def test_types_that_torch_computes_with(tmp_path: Path, given_: str, kept: str) -> None:
    x = np.array([[0, 1], [1, 0], [1, 1], [0, 0], [1, 0]]).astype(given_)
    shards = write_shards(tmp_path, {"a": (x, Y)}, holdout=0)
    assert str(shards.dtype) == kept
    np.testing.assert_array_equal(shards.train(0)[0].numpy(), x.astype(kept))


def test_next_characters_are_of_one_vocabulary(tmp_path: Path) -> None:
    text = np.array([[3, 1, 4, 1, 5]])
    shards = write_shards(tmp_path, {"a": (text[:, :-1], text[:, 1:])}, task="next-character", classes="abcdef")
    assert (shards.shape, shards.target_shape, shards.classes) == ((4,), (4,), tuple("abcdef"))
    with pytest.raises(JobError, match="next-character of 5 classes"):
        write_shards(tmp_path / "few", {"a": (text[:, 1:], text[:, :-1])}, task="next-character", classes="abcde")


def test_torch_tensors_and_a_stream_of_clients(tmp_path: Path) -> None:
    stream = ((name, (torch.ones(3, 2), torch.tensor([0, 1, 0]))) for name in ("a", "b"))
    shards = fedmpi.write_shards(tmp_path, stream, holdout=0, scale=0.5)
    assert torch.equal(shards.train(1)[0], torch.ones(3, 2))
    assert shards.scale == 0.5


def test_clients_that_say_what_they_keep_aside(tmp_path: Path) -> None:
    aside = np.ones((2, 2), np.float32), np.array([2, 2])
    shards = write_shards(tmp_path, {"a": (X, Y, *aside), "b": (X, Y, aside[0][:0], aside[1][:0])})
    np.testing.assert_array_equal(shards.heldout(0)[0].numpy(), aside[0])
    np.testing.assert_array_equal(shards.train(1)[1].numpy(), Y)
    assert shards.heldout_sizes(np.arange(2)).tolist() == [2, 0]
    assert shards.test_examples == 2


@pytest.mark.parametrize(
    ("clients", "options", "message"),
    [
        ({}, {}, "clients: none given"),
        ({"a": (X, Y[:4])}, {}, r"client 'a': x has shape \(5, 2\), y \(4,\)"),
        ({"a": (X,)}, {}, "client 'a': 1 arrays given"),
        ({"a": (X, Y, X)}, {}, "client 'a', held out: 1 arrays given"),
        ({"a": (X, Y), "b": (X[:, :1], Y)}, {}, r"client 'b': x is float32 of shape \(1,\)"),
        ({"a": (X, Y), "b": (X.astype(int), Y)}, {}, "client 'b': x is int64"),
        ({"a": (X, Y)}, {"test": (X, Y / 2)}, "test examples: y is float64"),
        ({"a": (X, Y, X, Y), "b": (X, Y)}, {}, "give every client held-out arrays"),
        ({"a": (X, Y, X, Y)}, {"holdout": 0.2}, "or give holdout"),
        ([("a", (X, Y)), ("a", (X, Y))], {}, "the id 'a' is given twice"),
        ({"": (X, Y)}, {}, "cannot be a client's id"),
        ({"a": (X, Y)}, {"task": "clasification"}, "task: 'clasification' given; there are classification"),
        ({"a": (X, Y / 2)}, {"task": "classification"}, "needs integer y"),
        ({"a": (X, Y - 1)}, {}, "holds -1 to 1"),
        ({"a": (X, Y)}, {"task": "binary"}, "binary of 3 classes"),
        ({"a": (X, Y)}, {"classes": ["no", "yes"]}, "classification of 2 classes takes 0 to 1"),
        ({"a": (X, X.astype(int))}, {}, "task: is missing"),
        ({"a": (X.astype(str), Y)}, {}, "x: holds <U"),
        ({"a": (X.astype(complex), Y)}, {}, "x: holds complex128"),
    ],
)
def test_arrays_that_cannot_be(tmp_path: Path, clients: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(JobError, match=message):
        write_shards(tmp_path / "set", clients, **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("place", "name"), [(0, "x"), (1, "y")])
def test_numbers_that_are_not_finite_are_refused(tmp_path: Path, place: int, name: str) -> None:
    pair = [X.copy(), np.zeros(5, np.float32)]
    pair[place][3:] = np.inf
    with pytest.raises(ShardError, match=f"client 'b': {name}: 2 of 5 rows hold NaN or infinity"):
        write_shards(tmp_path / "set", {"a": (X, np.zeros(5, np.float32)), "b": tuple(pair)})
    assert not list(tmp_path.iterdir())


@settings(derandomize=True, database=None, deadline=None, max_examples=30)
@given(labels=st.lists(st.integers(0, 9), min_size=1, max_size=12), kept=st.integers(0, 4))
def test_labels_are_stored_as_a_table_of_them_is(labels: list[int], kept: int) -> None:
    """By `shard csv` as here: no class without an example, and a label's class is called by its number."""
    y = np.array(labels)
    with shard_sets.scratch() as folder, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        shards = write_shards(folder, {"a": (np.zeros((len(y), 1)), y)}, test=(np.zeros((kept, 1)), y[:1].repeat(kept)))
        table = folder.with_suffix(".csv")
        table.write_text("x,y\n" + "".join(f"{n}.5,{label}\n" for n, label in enumerate(labels)))
        assert shards.classes == csv(table, target="y").classes == tuple(map(str, sorted(set(labels))))
        assert [int(shards.classes[label]) for label in shards.train(0)[1]] == labels
        assert [int(shards.classes[label]) for label in shards.test()[1]] == labels[:1] * kept
        same = sorted(set(labels)) == list(range(len(set(labels))))
        assert len(told) == (not same)
        assert same or str(told[0].message) == shards.manifest.created["notes"][0]


def test_labels_whose_classes_are_named_stay_as_they_are(tmp_path: Path) -> None:
    y = np.array([1, 3, 3, 1])
    shards = write_shards(tmp_path / "named", {"a": (np.zeros((4, 1)), y)}, classes=list("abcde"), holdout=0)
    assert (shards.classes, shards.train(0)[1].tolist()) == (tuple("abcde"), y.tolist())
    with pytest.warns(UserWarning, match="labels 1, 3 are stored as 0 to 1"):
        shards = write_shards(tmp_path / "two", {"a": (np.zeros((4, 1)), y)}, task="binary", holdout=0)
    assert (shards.classes, shards.train(0)[1].tolist()) == (("1", "3"), [0, 1, 1, 0])
    shards = write_shards(tmp_path / "one", {"a": (np.zeros((4, 1)), y * 0 + 1)}, task="binary", holdout=0)
    assert (shards.classes, shards.train(0)[1].tolist()) == (("0", "1"), [1] * 4)


@pytest.mark.parametrize(
    ("clients", "message"),
    [
        ([(X, Y), (X, Y)], r"number 0 has a ndarray of shape \(5, 2\) where its id should be; give a dict"),
        ([X, Y], "number 0 is a ndarray; give a dict"),
        ([("a", X, Y)], "number 0 is a tuple of 3; give"),
        ({None: (X, Y)}, "number 0 has a NoneType where its id should be"),
        ({"a": X}, r"client 'a': a ndarray of shape \(5, 2\) given; should be \(x, y\)"),
        ({"a": {"x": X, "y": Y}}, r"client 'a': a dict given; should be \(x, y\)"),
        ({"a": ([[1], [2, 3]], [0, 1])}, "client 'a': x or y is no array of numbers"),
        ({"a": (torch.ones(5, 2, requires_grad=True), Y)}, "client 'a': x or y is no array of numbers"),
        (7, "clients: a int given"),
        ({"\ud800": (X, Y)}, "cannot be a client's id"),
    ],
)
def test_clients_that_are_none_are_told_in_a_line(tmp_path: Path, clients: Any, message: str) -> None:
    with pytest.raises(JobError, match=message) as told:
        write_shards(tmp_path / "set", clients)
    assert len(str(told.value)) < 300
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("scale", [0.0, float("nan"), float("inf")])
def test_a_scale_that_leaves_nothing_is_refused(tmp_path: Path, scale: float) -> None:
    with pytest.raises(JobError, match="scale: .* given"):
        write_shards(tmp_path / "set", {"a": (X, Y)}, scale=scale)
