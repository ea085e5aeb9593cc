"""Where it runs: inside whose MPI launch, under which `mpirun`, on which cores and GPUs."""

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
