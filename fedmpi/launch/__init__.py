"""The MPI launch: detecting one, starting one with `mpirun`, the nodes under its ranks, and the doctor."""

from fedmpi.launch.detect import RANKS, Launch, refuse_singletons, terminal, world
from fedmpi.launch.local import Mpirun, command, environment, find_mpirun, run, sweep
from fedmpi.launch.waiting import waiting

__all__ = [
    "RANKS",
    "Launch",
    "Mpirun",
    "command",
    "environment",
    "find_mpirun",
    "refuse_singletons",
    "run",
    "sweep",
    "terminal",
    "waiting",
    "world",
]
