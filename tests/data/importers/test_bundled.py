"""scikit-learn's sets: shapes, ranges, and the remedy where it is not installed."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from fedmpi.data import IMPORTERS
from fedmpi.flow import Refused

SHAPES = {
    "digits": (1797, (1, 8, 8), "classification", 10),
    "breast_cancer": (569, (30,), "binary", 2),
    "iris": (150, (4,), "classification", 3),
    "wine": (178, (13,), "classification", 3),
    "diabetes": (442, (10,), "regression", 0),
}


@pytest.mark.parametrize("name", SHAPES)
def test_what_the_sets_are(name: str) -> None:
    examples, shape, task, classes = SHAPES[name]
    columns = IMPORTERS[name]()
    assert columns.x.shape == (examples, *shape)
    assert columns.y.shape == (examples,)
    assert (columns.task, len(columns.classes), columns.test) == (task, classes, None)
    if classes:
        assert set(columns.y.tolist()) == set(range(classes))


@pytest.mark.parametrize("name", ["breast_cancer", "iris", "wine", "diabetes"])
def test_features_are_standardised(name: str) -> None:
    x = IMPORTERS[name]().x
    assert x.dtype == np.float32
    np.testing.assert_allclose(x.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(x.std(0), 1, atol=1e-5)


def test_digits_are_scaled_bytes() -> None:
    from sklearn.datasets import load_digits

    columns = IMPORTERS["digits"]()
    assert columns.x.dtype == np.uint8
    np.testing.assert_array_equal(columns.x.reshape(1797, 64) * columns.scale, load_digits().data / 16)


def test_diabetes_keeps_the_unit_of_its_target() -> None:
    y = IMPORTERS["diabetes"]().y
    assert (y.min(), y.max()) == (25, 346)


def test_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(Refused, match=r"pip install \"fedmpi\[sklearn\]\""):
        IMPORTERS["digits"]()


@pytest.mark.parametrize("name", IMPORTERS)
def test_every_importer_is_documented_and_typed(name: str) -> None:
    assert IMPORTERS[name].__doc__
    assert all(kind is not None for kind, _ in IMPORTERS.options(name).values())
