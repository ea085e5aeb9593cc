"""Federated learning for HPC: MPI, PyTorch, one flat vector, one Bcast and one Reduce a round.

For scripts: `train` runs a job on every rank of a communicator, `write_shards` makes a shard set of the script's own
arrays.  Everything else is a job file and the command `fedmpi`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fedmpi import version

if TYPE_CHECKING:
    from fedmpi.data import ShardSet, write_shards
    from fedmpi.flow import Refused
    from fedmpi.rounds import Run, train

__version__ = version.VERSION
__all__ = ["Refused", "Run", "ShardSet", "__version__", "train", "write_shards"]

_ROOMS = {"Refused": "flow", "Run": "rounds", "ShardSet": "data", "train": "rounds", "write_shards": "data"}


def __getattr__(name: str) -> Any:
    """Return a public name, and import its room only now: `fedmpi --help` need not wait for torch."""
    if name not in _ROOMS:
        raise AttributeError(f"module 'fedmpi' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"fedmpi.{_ROOMS[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
