"""Networks of other people's benchmarks."""

from __future__ import annotations

from torch import nn


def pfl_cnn(shape: tuple[int, ...], outputs: int) -> nn.Module:
    """pfl-research's CNN for CIFAR-10: 1,626,442 parameters on 3 x 32 x 32."""
    return nn.Sequential(
        nn.Conv2d(shape[0], 32, 3),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout(0.25),
        nn.Flatten(),
        nn.Linear(64 * (shape[1] // 2 - 2) * (shape[2] // 2 - 2), 128),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(128, outputs),
    )
