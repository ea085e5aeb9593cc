"""The generated line: what least squares finds in it is what was asked for."""

from __future__ import annotations

import numpy as np

from fedmpi.data.importers import linear


def test_least_squares_finds_the_line() -> None:
    columns = linear(np.random.default_rng(0), examples=4000, slope=-1.5, intercept=0.5, noise=0.2)
    design = np.column_stack([columns.x[:, 0], np.ones(4000)])
    (slope, intercept), residual, *_ = np.linalg.lstsq(design, columns.y, rcond=None)
    error = 4 * 0.2 / np.sqrt(4000)
    assert abs(slope + 1.5) < 2 * error
    assert abs(intercept - 0.5) < error
    assert abs(np.sqrt(residual[0] / 4000) - 0.2) < 0.01
    assert np.abs(columns.x).max() <= 1
    assert (columns.task, columns.x.dtype, columns.y.dtype) == ("regression", np.float32, np.float32)


def test_the_seed_is_all_that_is_random() -> None:
    one, same, other = (linear(np.random.default_rng(seed)).y for seed in (3, 3, 4))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
    exact = linear(np.random.default_rng(0), noise=0.0)
    np.testing.assert_allclose(exact.y, 3 * exact.x[:, 0] + 2, atol=1e-6)
