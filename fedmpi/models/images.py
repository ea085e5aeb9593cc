"""Convolutional models of images `(channels, height, width)`, or `(height, width)` where there is one channel."""

from __future__ import annotations

from collections import OrderedDict
from itertools import count

from torch import nn

KERNEL = 5
POOL = 2


def cnn(shape: tuple[int, ...], outputs: int) -> nn.Module:
    """The CNN of McMahan et al. 2017, section 3: 32 and 64 filters that keep the size, 512 units.

    1,663,370 parameters on 28 x 28 and ten classes.
    """
    return _network(shape, outputs, filters=(32, 64), padding=KERNEL // 2, hidden=(512,))


def lenet(shape: tuple[int, ...], outputs: int) -> nn.Module:
    """LeNet-5 (LeCun et al. 1998) as NIID-Bench (Li et al. 2022) has it: 6 and 16 filters, 120 and 84 units, ReLU.

    44,426 parameters on 28 x 28 and ten classes.
    """
    return _network(shape, outputs, filters=(6, 16), padding=0, hidden=(120, 84))


def small_cnn(shape: tuple[int, ...], outputs: int, dropout: float = 0.0) -> nn.Module:
    """A small CNN: 10 and 20 filters, 50 units; `dropout` of whole channels before the last pool, and of the units.

    21,840 parameters on 28 x 28 and ten classes.
    """
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout is {dropout}; it should lie in [0, 1)")
    return _network(shape, outputs, filters=(10, 20), padding=0, hidden=(50,), dropout=dropout)


def _network(
    shape: tuple[int, ...],
    outputs: int,
    filters: tuple[int, ...],
    padding: int,
    hidden: tuple[int, ...],
    dropout: float = 0.0,
) -> nn.Module:
    if len(shape) not in (2, 3):
        raise ValueError(f"takes images (channels, height, width); these examples have shape {tuple(shape)}")
    channels, height, width = (1, *shape) if len(shape) == 2 else shape
    rows, columns = _left(height, filters, padding), _left(width, filters, padding)
    if rows < 1 or columns < 1:
        least = next(side for side in count(1) if _left(side, filters, padding) >= 1)
        raise ValueError(
            f"takes images (channels, height, width) of at least {least} x {least}; "
            f"these examples have shape {tuple(shape)}"
        )
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if len(shape) == 2:
        layers["channel"] = nn.Unflatten(1, (1, height))
    for place, wide in enumerate(filters, start=1):
        layers[f"conv{place}"] = nn.Conv2d(channels, wide, KERNEL, padding=padding)
        if dropout and place == len(filters):
            layers["conv_dropout"] = nn.Dropout2d(dropout)
        layers[f"pool{place}"] = nn.MaxPool2d(POOL)
        layers[f"relu{place}"] = nn.ReLU()  # behind the pool: the same values of a quarter of the work
        channels = wide
    layers["flatten"] = nn.Flatten()
    units = channels * rows * columns
    for place, wide in enumerate(hidden, start=1):
        layers[f"hidden{place}"] = nn.Linear(units, wide)
        layers[f"activation{place}"] = nn.ReLU()
        units = wide
    if dropout:
        layers["dropout"] = nn.Dropout(dropout)
    layers["output"] = nn.Linear(units, outputs)
    return nn.Sequential(layers)


def _left(side: int, filters: tuple[int, ...], padding: int) -> int:
    """Return the side of the image behind all convolutions and pools; less than 1 where it does not fit."""
    for _ in filters:
        side = (side + 2 * padding - KERNEL + 1) // POOL
    return side
