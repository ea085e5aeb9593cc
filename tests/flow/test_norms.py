"""Norms of one vector, of rows and of planes are NumPy's, and rules ask nowhere else."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

import fedmpi
from fedmpi.flow import norms

ROOT = Path(fedmpi.__file__).parent
OTHERWISE = re.compile(r"vector_norm|torch\.dot|vecdot|\.norm\(p?=?\d|\.square\(\)\.sum\(\)")


@pytest.mark.parametrize("shape", [(9,), (3, 9), (2, 3, 9)], ids=str)
def test_they_are_numpy_s_along_the_last_axis(shape: tuple[int, ...]) -> None:
    random = np.random.default_rng(0)
    one, other = random.normal(size=shape), random.normal(size=shape)
    first, second = torch.from_numpy(one), torch.from_numpy(other)
    np.testing.assert_allclose(norms.norm(first).numpy(), np.sqrt((one**2).sum(-1)))
    np.testing.assert_allclose(norms.square(first).numpy(), (one**2).sum(-1))
    np.testing.assert_allclose(norms.inner(first, second).numpy(), (one * other).sum(-1))
    if len(shape) > 1:
        np.testing.assert_allclose(norms.norm(first, planes=True).numpy(), np.sqrt((one**2).sum((-2, -1))))


def test_no_rule_or_stage_takes_a_norm_of_what_lies_before_it() -> None:
    for room in ("strategies", "training", "aggregation", "rounds"):
        for file in (ROOT / room).rglob("*.py"):
            assert not OTHERWISE.search(file.read_text(encoding="utf-8")), file.relative_to(ROOT)
