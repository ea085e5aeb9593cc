"""`fedmpi train`: check a job, start mpirun outside a launch, and train."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedmpi import hear, launch, tell
from fedmpi.tell import Interrupted, Refused

if TYPE_CHECKING:
    from fedmpi.job import Job

BASELINES = ("pooled", "local")


def train(
    context: typer.Context,
    job: Annotated[Path, typer.Argument(metavar="JOB", help="The job file (TOML).")],
    ranks: Annotated[
        int | None,
        typer.Option("-n", "--ranks", min=1, help="Ranks to start: one server, the rest clients; 1 needs no MPI."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder.  [runs/NAME of the job]")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Override a field of the job; repeatable.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder, if any.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in the folder.")] = False,
    reschedule: Annotated[
        bool, typer.Option("--reschedule", help="With --resume: let the schedules count another number of rounds.")
    ] = False,
    baseline: Annotated[
        str | None,
        typer.Option(metavar="pooled|local", help="Train a baseline of the job instead, into the run's baselines/."),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Show the resolved job, memory per rank and bytes per round; no training."),
    ] = False,
    profile: Annotated[
        bool,
        typer.Option(
            "--profile", help="Keep each rank's time in the run's folder, for ui.perfetto.dev and the report."
        ),
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress display.")] = False,
) -> int:
    """Train a model over MPI; outside an MPI launch this starts mpirun itself."""
    if baseline is not None and baseline not in BASELINES:
        from fedmpi.job import nearest

        message = f"{baseline!r} given; there are {', '.join(BASELINES)}{nearest(baseline, BASELINES)}"
        raise typer.BadParameter(message, param_hint="--baseline")
    if profile and baseline is not None:
        raise typer.BadParameter("a baseline is not profiled; leave one of them out", param_hint="--profile")
    if dry_run:
        from fedmpi.cli.dry_run import show

        show(_read(job, overrides), ranks or default_ranks(None))
        return 0
    request = Request(job, out, tuple(overrides or ()), resume, overwrite, reschedule, baseline, quiet, profile)
    outer = launch.world()
    if outer is None:
        launch.refuse_singletons(1)
        if ranks != 1:
            return _start(request, ranks)
    elif ranks is not None and outer.size not in (None, ranks):
        raise Refused(f"-n {ranks}: given, but {outer.launcher} has started {outer.size} ranks; leave -n out under it")
    return _train(request, context.obj() if outer else None)


@dataclass(frozen=True)
class Request:
    """The arguments of one `fedmpi train`."""

    path: Path
    out: Path | None
    overrides: tuple[str, ...]
    resume: bool
    overwrite: bool
    reschedule: bool
    baseline: str | None
    quiet: bool
    profile: bool = False

    def folder(self, job: Job) -> Path:
        """Return the run's folder: `out`, or runs/NAME with the name of the job."""
        return self.out or Path("runs") / job.name

    def again(self, folder: Path, ranks: int | None) -> str:
        """Return the command to go on with; `ranks` is None where another launcher starts them.

        A baseline begins anew.
        """
        words = replace(self, resume=self.baseline is None, overwrite=False).words(folder)
        return shlex.join(["fedmpi", *words, *(["-n", str(ranks)] if ranks else [])])

    def words(self, folder: Path) -> list[str]:
        """Return the arguments as words again, for the ranks to read."""
        words = ["train", str(self.path), "--out", str(folder)]
        words += [word for text in self.overrides for word in ("--set", text)]
        switches = {
            "--resume": self.resume,
            "--overwrite": self.overwrite,
            "--reschedule": self.reschedule,
            "--profile": self.profile,
            "--quiet": self.quiet,
        }
        words += [name for name, given in switches.items() if given]
        return [*words, "--baseline", self.baseline] if self.baseline else words


def _read(path: Path, overrides: Sequence[str] | None) -> Job:
    from fedmpi.job import read

    return read(path, overrides or ())


def default_ranks(cohort: int | None) -> int:
    """Return the number of ranks to start by default: SLURM's tasks, else a server and a client for each core.

    The client ranks are at most `cohort`, where it is given.
    """
    if os.environ.get("SLURM_NTASKS"):
        return int(os.environ["SLURM_NTASKS"])
    from fedmpi.cores import cores

    return 1 + (cores() if cohort is None else min(cores(), cohort))


def _start(request: Request, ranks: int | None) -> int:
    """Check everything here, let mpirun start the ranks, and return the exit status."""
    from fedmpi.comm import NodePlace, Solo
    from fedmpi.plan import assemble
    from fedmpi.records.folder import RunFolder
    from fedmpi.rounds.loops import LOOPS
    from fedmpi.rounds.resume import as_begun, find

    launch.waiting(f"checking {request.path}")
    job = _read(request.path, request.overrides)
    folder = RunFolder(request.folder(job))
    plan = assemble(as_begun(job, Solo(), folder, request.resume), loops=LOOPS)
    if "SLURM_JOB_ID" not in os.environ:  # ranks will run here, so what they need must be here
        NodePlace().device(job.device)
    if request.baseline is None:
        find(folder, plan, request.resume, request.overwrite, request.reschedule)
    done = None if request.baseline else folder.done
    size = ranks or default_ranks(plan.cohort)
    again = request.again(folder.path, size)
    return launch.run(size, request.words(folder.path), done=done, folder=folder.path, again=again)


def _train(request: Request, world: Any) -> int:
    """Train in this process, a rank of `world` or alone, and return the exit status."""
    from fedmpi import rounds
    from fedmpi.cli.progress import Progress
    from fedmpi.comm import wrap

    comm = wrap(world)
    launch.refuse_singletons(comm.size, comm.library)
    job: Job | None = None
    error: Refused | None = None
    try:
        job = _read(request.path, request.overrides)
    except Refused as refused:
        error = refused
    comm.settle(error)
    assert job is not None
    folder = request.folder(job)
    alone = comm.size == 1 and launch.world() is None
    again = request.again(folder, comm.size if alone or launch.RANKS in os.environ else None)
    progress = Progress(job.name, job.rounds, comm.size) if comm.is_home and not request.quiet else None
    on_round = progress.round if progress else None
    # A rank listens for USR1 already.  A process alone takes any signal to end as a request to stop, and a second one
    # ends it at once.
    listening = hear.listening(hear.STOPS, _at_once(folder, again)) if alone else nullcontext()
    tell.watched = launch.waiting
    try:
        with listening:
            if request.baseline is not None:
                launch.waiting(f"training the {request.baseline} baseline")
                rounds.baseline(job, comm, request.baseline, folder, on_round)
                folder = folder / "baselines" / request.baseline
            else:
                launch.waiting("opening the shard set, making the model")
                rounds.train(
                    job,
                    comm,
                    out=folder,
                    resume=request.resume,
                    overwrite=request.overwrite,
                    reschedule=request.reschedule,
                    on_round=on_round,
                    profile=request.profile,
                )
    except Interrupted as stopped:
        stopped.args = (f"{stopped}; go on with: {again}",)
        raise
    finally:
        launch.waiting("")
        if progress is not None:
            progress.stop()
    if progress is not None:
        progress.summary(folder, request.baseline)
    return 0


def _at_once(folder: Path, again: str) -> Callable[[int], None]:
    """Return the effect of a second signal on a process alone: it removes its half-written files and ends."""

    def end(number: int) -> None:
        launch.sweep(folder)
        tell.end(f"ended at once; the last checkpoint counts: {again}", 128 + number)
        os._exit(128 + number)

    return end
