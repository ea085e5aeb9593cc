"""Crossings: norms, clients, reasons."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from fedmpi.flow import REASONS, Layout, Refused, Unfit
from tests.crossings import passage_of

OF_CLIENTS = ("clients", "examples", "times", "memory")
DTYPES = [torch.float32, torch.float64]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_norm_is_of_what_is_trained_in_all_planes(dtype: torch.dtype) -> None:
    layout = Layout(8, slice(0, 5), dtype, up=2, weights=("examples", "none", "none"), sums=("s",))
    wire = torch.randn(3, layout.width, dtype=dtype, generator=torch.Generator().manual_seed(0))
    passage = passage_of(layout, [1, 1, 1])
    rows = wire.double().numpy()
    trained = np.concatenate([rows[:, :5], rows[:, 8:13]], axis=1)
    expected = np.sqrt((trained**2).sum(axis=1))
    np.testing.assert_allclose(passage.norm(wire).double().numpy(), expected, rtol=1e-6)
    assert passage.norm(wire[0]).shape == ()


def test_a_passage_of_some_clients_is_the_same_crossing() -> None:
    memory = {"a": torch.arange(6.0).view(3, 2)}
    layout = Layout(8, slice(0, 8), torch.float32)
    passage = passage_of(layout, [7, 30, 2], round=4, crossing=1, attempt=2, epoch=3, members=(0, 2), memory=memory)
    for places in (slice(1, 3), np.array([1, 2])):
        some = passage.of(places)
        assert (some.clients.tolist(), some.examples.tolist(), some.times.tolist()) == ([1, 2], [30, 2], [1, 1])
        assert torch.equal(some.memory["a"], memory["a"][1:])
        same = [field.name for field in dataclasses.fields(some) if field.name not in OF_CLIENTS]
        assert all(getattr(some, name) is getattr(passage, name) for name in same)
    passage.of(slice(1, 3)).memory["a"].zero_()  # a slice's memory is a view
    assert memory["a"].tolist() == [[0, 1], [0, 0], [0, 0]]
    assert passage.of(np.array([0]), {"b": memory["a"][:1]}).memory.keys() == {"b"}


def test_reasons_fit_behind_a_client_s_name() -> None:
    for reason, text in REASONS.items():
        assert Unfit(reason).reason == reason
        assert text.startswith("is ")  # "client 7's update is ..."
    assert 0 not in REASONS  # 0 in the tally is an update that entered


def test_a_refusal_found_exits_with_1() -> None:
    assert Refused("x").code == 1
