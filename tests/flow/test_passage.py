"""Crossings: norms, clients, reasons."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from fedmpi.flow import REASONS, Layout, Passage, Refused, Unfit

DTYPES = [torch.float32, torch.float64]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_norm_is_of_what_is_trained_in_all_planes(dtype: torch.dtype) -> None:
    layout = Layout(8, slice(0, 5), dtype, up=2, weights=("examples", "none", "none"), sums=("s",))
    wire = torch.randn(3, layout.width, dtype=dtype, generator=torch.Generator().manual_seed(0))
    passage = Passage(1, np.arange(3), layout)
    rows = wire.double().numpy()
    trained = np.concatenate([rows[:, :5], rows[:, 8:13]], axis=1)
    expected = np.sqrt((trained**2).sum(axis=1))
    np.testing.assert_allclose(passage.norm(wire).double().numpy(), expected, rtol=1e-6)
    assert passage.norm(wire[0]).shape == ()


def test_a_passage_of_a_client_is_the_same_crossing() -> None:
    passage = Passage(4, np.array([1, 5]), Layout(8, slice(0, 8), torch.float32), attempt=2)
    one = passage.of(5, 30)
    assert (one.client, one.examples) == (5, 30)
    assert dataclasses.replace(one, client=None, examples=0) == passage


def test_reasons_fit_behind_a_client_s_name() -> None:
    for reason, text in REASONS.items():
        assert Unfit(reason).reason == reason
        assert text.startswith("is ")  # "client 7's update is ..."
    assert 0 not in REASONS  # 0 in the tally is an update that entered


def test_a_refusal_found_exits_with_1() -> None:
    assert Refused("x").code == 1
