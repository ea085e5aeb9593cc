"""Schedules of the learning rate: the factor of `local.lr` in a round."""

from __future__ import annotations

import math
from collections.abc import Callable

from fedmpi.job import Registry

Schedule = Callable[[int, int], float]  # (round from 1, rounds in all) -> factor


def constant() -> Schedule:
    """The same in every round."""
    return lambda round, rounds: 1.0


def exponential(decay: float = 0.99) -> Schedule:
    """`decay`^(round - 1)."""
    if not 0 < decay <= 1:
        raise ValueError("decay should lie in (0, 1]")
    return lambda round, rounds: decay ** (round - 1)


def linear(end: float = 0.0) -> Schedule:
    """From 1 in the first round, straight towards `end`, which the round after the last would have."""
    if not 0 <= end <= 1:
        raise ValueError("end should lie in [0, 1]: it is a share of local.lr")
    return lambda round, rounds: 1 + (end - 1) * min(1, (round - 1) / rounds)


def step(every: int = 10, factor: float = 0.1) -> Schedule:
    """Times `factor` after each `every` rounds."""
    if every < 1 or not 0 < factor <= 1:
        raise ValueError("every should be at least 1 and factor lie in (0, 1]")
    return lambda round, rounds: factor ** ((round - 1) // every)


def cosine(end: float = 0.0) -> Schedule:
    """Half a cosine from 1 towards `end` (Loshchilov and Hutter 2017, SGDR, equation 5, without restarts)."""
    if not 0 <= end <= 1:
        raise ValueError("end should lie in [0, 1]: it is a share of local.lr")
    return lambda round, rounds: end + (1 - end) * (1 + math.cos(math.pi * min(1, (round - 1) / rounds))) / 2


SCHEDULES: Registry[Schedule] = Registry(
    "local.schedule",
    {
        "constant": constant,
        "exponential": exponential,
        "linear": linear,
        "step": step,
        "cosine": cosine,
    },
    of=Callable,
)
