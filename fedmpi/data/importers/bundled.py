"""The sets bundled with scikit-learn: they need no download."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

from fedmpi.data.columns import Columns
from fedmpi.flow import Refused


def digits() -> Columns:
    """Handwritten digits: 1,797 grey images (1, 8, 8) of 0 .. 16, ten classes."""
    bunch = _sets().load_digits()
    return Columns(
        x=bunch.images[:, None].astype(np.uint8),
        y=bunch.target.astype(np.int64),
        task="classification",
        classes=tuple(str(name) for name in bunch.target_names),
        scale=1 / 16,
    )


def breast_cancer() -> Columns:
    """Wisconsin breast cancer: 569 tumours of 30 standardised features, malignant (0) or benign (1): binary."""
    return _labelled(_sets().load_breast_cancer(), "binary")


def iris() -> Columns:
    """Fisher's iris: 150 flowers of 4 standardised features, three classes."""
    return _labelled(_sets().load_iris(), "classification")


def wine() -> Columns:
    """Wine cultivars: 178 wines of 13 standardised features, three classes."""
    return _labelled(_sets().load_wine(), "classification")


def diabetes() -> Columns:
    """Diabetes: 442 patients of 10 standardised features; the target is the disease's progression, 25 to 346."""
    bunch = _sets().load_diabetes(scaled=False)
    return Columns(x=_standardised(bunch.data), y=bunch.target.astype(np.float32), task="regression")


def _labelled(bunch: Any, task: str) -> Columns:
    names = tuple(str(name) for name in bunch.target_names)
    return Columns(x=_standardised(bunch.data), y=bunch.target.astype(np.int64), task=task, classes=names)


def _standardised(x: Any) -> Any:
    """Return each feature with mean 0 and standard deviation 1 over the whole set, in float32."""
    return ((x - x.mean(axis=0)) / x.std(axis=0)).astype(np.float32)


def _sets() -> ModuleType:
    try:
        from sklearn import datasets
    except ModuleNotFoundError:
        raise Refused('this set comes with scikit-learn: pip install "fedmpi[sklearn]"') from None
    return datasets  # type: ignore[no-any-return]  # scikit-learn has no types
