"""Communicators: one rank alone, or a world of ranks over MPI."""

from typing import Any

from fedmpi.comm.solo import Solo
from fedmpi.comm.timed import Timed
from fedmpi.comm.topology import NodePlace

__all__ = ["NodePlace", "Solo", "Timed", "wrap"]


def wrap(comm: Any) -> Any:
    """Return the house's communicator for mpi4py's, for None (one rank, no MPI), or for one of the house's own."""
    if comm is None:
        return Solo()
    if hasattr(comm, "settle"):
        return comm
    from fedmpi.comm.world import World  # imports mpi4py, which one process alone need not have

    return World(comm)
