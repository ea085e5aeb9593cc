"""The registries of all rooms, for lists and hints alone: to choose a component, a caller imports its registry."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from fedmpi.job.registry import Registry

ROOMS = {  # by the words of `fedmpi list`
    "strategies": "fedmpi.strategies:STRATEGIES",
    "loops": "fedmpi.rounds.loops:LOOPS",
    "samplers": "fedmpi.cohort.samplers:SAMPLERS",
    "stages": "fedmpi.aggregation:STAGES",
    "paths": "fedmpi.aggregation:PATHS",
    "engines": "fedmpi.training:ENGINES",
    "models": "fedmpi.models:MODELS",
    "tasks": "fedmpi.evaluation:TASKS",
    "optimizers": "fedmpi.optim:OPTIMIZERS",
    "schedules": "fedmpi.training:SCHEDULES",
    "importers": "fedmpi.data:IMPORTERS",
    "partitions": "fedmpi.data:PARTITIONS",
}


def registries() -> dict[str, Registry[Any]]:
    """Return every registry of the house, by the words of `fedmpi list`."""
    places = {word: place.split(":") for word, place in ROOMS.items()}
    return {word: getattr(import_module(module), name) for word, (module, name) in places.items()}
