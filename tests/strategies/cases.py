"""What a strategy needs of a job beside its name, and which models it can be tried on."""

from __future__ import annotations

from typing import Any

import torch

from fedmpi import job
from fedmpi.job import JobError
from fedmpi.strategies import STRATEGIES
from tests import toy
from tests.toy import GRADIENTS

SERVER = {name: {"lr": 0.05} for name in ("fedadagrad", "fedadam", "fedyogi")}


def fits(strategy: str, model: str) -> bool:
    """Whether a strategy finds in the model what it looks for: normalisation layers, something beside a head."""
    try:
        STRATEGIES[strategy](server=None).stays(toy.made(model))
    except JobError:
        return False
    return True


PAIRS = [(strategy, model) for strategy in STRATEGIES for model in toy.MODELS if fits(strategy, model)]


def takes(strategy: str, local: dict[str, Any]) -> bool:
    """Whether a strategy goes with such a [local] table."""
    wanted = job.read({"rounds": 1, "data": {"shards": "toy"}, "model": "toy", "strategy": strategy, "local": local})
    try:
        STRATEGIES[strategy](server=None).check(wanted)
    except JobError:
        return False
    return True


def over(strategy: str, local: dict[str, Any]) -> dict[str, Any]:
    """The tables of a job that are laid over another's for this strategy."""
    return {
        "strategy": {"name": strategy},
        "local": {"lr": local["lr"]} if strategy in GRADIENTS else local,
        "server": dict(SERVER.get(strategy, {})),
    }


def model(shape: tuple[int, ...], outputs: int) -> torch.nn.Module:
    """A model in which every strategy finds what it looks for."""
    return torch.nn.Sequential(
        torch.nn.Linear(*shape, 8), torch.nn.LayerNorm(8), torch.nn.ReLU(), torch.nn.Linear(8, outputs)
    )
