"""Where it runs: inside whose MPI launch, under which `mpirun`, on which cores and GPUs."""

from fedmpi.launch.detect import Launch, refuse_singletons, terminal, world
from fedmpi.launch.local import Mpirun, command, environment, find_mpirun, run

__all__ = [
    "Launch",
    "Mpirun",
    "command",
    "environment",
    "find_mpirun",
    "refuse_singletons",
    "run",
    "terminal",
    "world",
]
