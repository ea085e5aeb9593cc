"""Convolutional models: published sizes, other sizes, and what does not fit."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from fedmpi.job import Component, JobError
from fedmpi.models import MODELS
from fedmpi.models.images import cnn, lenet, small_cnn

LEAST = {"cnn": 4, "lenet": 16, "small-cnn": 16}


@pytest.mark.parametrize(("name", "published"), [("cnn", 1_663_370), ("lenet", 44_426), ("small-cnn", 21_840)])
def test_it_has_its_published_size(name: str, published: int) -> None:
    model = MODELS[name](shape=(1, 28, 28), outputs=10)
    assert sum(parameter.numel() for parameter in model.parameters()) == published


@settings(derandomize=True, database=None, deadline=None, max_examples=30)
@given(
    name=st.sampled_from(sorted(LEAST)),
    channels=st.integers(1, 4),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
)
def test_an_image_either_fits_or_is_refused(name: str, channels: int, height: int, width: int) -> None:
    shape = (channels, height, width)
    if min(height, width) < LEAST[name]:
        with pytest.raises(JobError, match=rf"{name}: takes images .* at least {LEAST[name]} x {LEAST[name]}"):
            MODELS.choose(Component(name=name), shape=shape, outputs=2)
    else:
        assert MODELS[name](shape=shape, outputs=2)(torch.rand(2, *shape)).shape == (2, 2)


@pytest.mark.parametrize("name", sorted(LEAST))
def test_without_an_axis_of_channels_there_is_one_channel(name: str) -> None:
    torch.manual_seed(0)
    bare = MODELS[name](shape=(20, 28), outputs=3)
    torch.manual_seed(0)
    full = MODELS[name](shape=(1, 20, 28), outputs=3)
    x = torch.rand(4, 20, 28)
    assert torch.equal(bare(x), full(x[:, None]))
    assert bare.state_dict().keys() == full.state_dict().keys()


@pytest.mark.parametrize("name", sorted(LEAST))
@pytest.mark.parametrize("shape", [(), (784,), (2, 1, 28, 28)])
def test_what_is_no_image_is_refused(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(JobError, match=r"model: .*takes images \(channels, height, width\)"):
        MODELS.choose(Component(name=name), shape=shape, outputs=2)


def test_the_papers_cnn_written_out() -> None:
    model, x = cnn((1, 28, 28), 10), torch.rand(3, 1, 28, 28)
    made, state = model(x), model.state_dict()
    for place in (1, 2):
        x = functional.conv2d(x, state[f"conv{place}.weight"], state[f"conv{place}.bias"], padding="same").relu()
        x = functional.max_pool2d(x, 2)
    x = (x.flatten(1) @ state["hidden1.weight"].T + state["hidden1.bias"]).relu()
    torch.testing.assert_close(made, x @ state["output.weight"].T + state["output.bias"])


def test_dropout_drops_while_training_alone() -> None:
    model, x = small_cnn((1, 16, 16), 2, dropout=0.5), torch.rand(2, 1, 16, 16)
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


def test_no_dropout_leaves_no_layer_that_draws() -> None:
    x = torch.rand(2, 1, 16, 16)
    for model in (lenet((1, 16, 16), 2), small_cnn((1, 16, 16), 2)):
        before = torch.get_rng_state()
        model(x)
        assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("dropout", [-0.1, 1.0])
def test_a_dropout_that_cannot_be_is_refused(dropout: float) -> None:
    with pytest.raises(JobError, match=r"small-cnn: dropout is .* should lie in \[0, 1\)"):
        MODELS.choose(Component(name="small-cnn", dropout=dropout), shape=(1, 28, 28), outputs=2)
