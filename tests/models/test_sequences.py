"""The character LSTM: published size, causality, and what does not fit."""

import pytest
import torch

from fedmpi.job import Component, JobError
from fedmpi.models import MODELS
from fedmpi.models.sequences import char_lstm


def test_it_has_its_published_size_but_for_the_second_bias_of_each_gate() -> None:
    model = char_lstm((80,), 90)
    second = sum(tensor.numel() for name, tensor in model.named_parameters() if "bias_hh" in name)
    assert sum(parameter.numel() for parameter in model.parameters()) - second == 820_522


def test_a_position_knows_nothing_of_what_follows() -> None:
    model, x = char_lstm((9,), 5, hidden=16), torch.randint(5, (3, 9))
    changed = x.clone()
    changed[:, 6:] = (changed[:, 6:] + 1) % 5
    first, second = model(x), model(changed)
    assert torch.equal(first[:, :6], second[:, :6])
    assert not torch.equal(first[:, 6:], second[:, 6:])


def test_its_sizes_are_options() -> None:
    state = char_lstm((4,), 7, embedding=3, hidden=11, layers=1).state_dict()
    assert state["embedding.weight"].shape == (7, 3)
    assert state["output.weight"].shape == (7, 11)
    assert not any("l1" in name for name in state)


@pytest.mark.parametrize("shape", [(), (1, 28, 28)])
def test_what_is_no_sequence_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(JobError, match=r"char-lstm: takes sequences of characters \(length,\)"):
        MODELS.choose(Component(name="char-lstm"), shape=shape, outputs=5)


@pytest.mark.parametrize("option", ["embedding", "hidden", "layers"])
def test_a_size_of_nothing_is_refused(option: str) -> None:
    with pytest.raises(JobError, match="each should be at least 1"):
        MODELS.choose(Component(name="char-lstm", **{option: 0}), shape=(5,), outputs=5)
