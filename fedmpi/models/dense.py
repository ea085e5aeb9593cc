"""Models of flat examples: an example of any shape enters as one row of values."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Literal

from torch import nn

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}


def linear(shape: tuple[int, ...], outputs: int) -> nn.Module:
    """Linear regression: one weight per value and output, and a bias."""
    return _dense(shape, (), outputs, nn.Identity)


def logistic(shape: tuple[int, ...], outputs: int) -> nn.Module:
    """Logistic regression: the linear model, its outputs read as logits."""
    return linear(shape, outputs)


def mlp(
    shape: tuple[int, ...],
    outputs: int,
    hidden: tuple[int, ...] = (200, 200),
    activation: Literal["relu", "gelu", "tanh", "sigmoid"] = "relu",
) -> nn.Module:
    """Fully connected layers; by default the "2NN" of McMahan et al. 2017, section 3.

    `hidden` lists the units of each hidden layer.  `activation` is the function behind each of them.  784-200-200-10
    has 199,210 parameters.
    """
    if any(width < 1 for width in hidden):
        raise ValueError(f"hidden is {list(hidden)}; every layer should have at least 1 unit")
    return _dense(shape, hidden, outputs, ACTIVATIONS[activation])


def _dense(shape: tuple[int, ...], hidden: tuple[int, ...], outputs: int, activation: type[nn.Module]) -> nn.Module:
    # An example that is a single number has no axis to flatten; it gets one.
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten() if shape else nn.Unflatten(0, (-1, 1)))
    width = math.prod(shape)
    for place, units in enumerate(hidden, start=1):
        layers[f"hidden{place}"] = nn.Linear(width, units)
        layers[f"activation{place}"] = activation()
        width = units
    layers["output"] = nn.Linear(width, outputs)
    return nn.Sequential(layers)
