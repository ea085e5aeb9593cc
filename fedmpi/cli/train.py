"""`fedmpi train`: check a job, start mpirun where that has not been done, and train."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedmpi import launch
from fedmpi.flow import Refused

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
    baseline: Annotated[
        str | None,
        typer.Option(metavar="pooled|local", help="Train a baseline of the job instead, into the run's baselines/."),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Show the resolved job, memory per rank and bytes per round; no training."),
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress display.")] = False,
) -> int:
    """Train a model over MPI: starts mpirun itself unless it was started by it."""
    if baseline is not None and baseline not in BASELINES:
        raise typer.BadParameter(f"{baseline!r} given; there are {', '.join(BASELINES)}", param_hint="--baseline")
    if dry_run:
        from fedmpi.cli.dry_run import show

        show(_read(job, overrides), ranks or _ranks(None))
        return 0
    found = launch.world()
    if found is None:
        launch.refuse_singletons(1)
    if found is None and ranks != 1:
        return _start(job, ranks, out, overrides, resume, overwrite, baseline, quiet)
    if found is not None and ranks is not None and found.size not in (None, ranks):
        raise Refused(f"-n {ranks}: given, but {found.launcher} has started {found.size} ranks; leave -n out under it")
    return _train(context.obj, found, job, out, overrides, resume, overwrite, baseline, quiet)


def _read(path: Path, overrides: list[str] | None) -> Job:
    from fedmpi.job import read

    return read(path, overrides or ())


def _ranks(cohort: int | None) -> int:
    """How many ranks to start where nobody said: what SLURM granted, else a server and a client for each core."""
    if os.environ.get("SLURM_NTASKS"):
        return int(os.environ["SLURM_NTASKS"])
    from fedmpi.cores import cores

    return 1 + (cores() if cohort is None else min(cores(), cohort))


def _start(
    path: Path,
    ranks: int | None,
    out: Path | None,
    overrides: list[str] | None,
    resume: bool,
    overwrite: bool,
    baseline: str | None,
    quiet: bool,
) -> int:
    """Check everything here, then let mpirun start the ranks."""
    from fedmpi.records.folder import RunFolder
    from fedmpi.rounds import assemble

    job = _read(path, overrides)
    plan = assemble(job)
    folder = RunFolder(out or Path("runs") / job.name)
    if baseline is None:
        folder.take(resume, overwrite)
    arguments = ["train", str(path), "--out", str(folder.path)]
    arguments += [word for text in overrides or () for word in ("--set", text)]
    arguments += [
        f"--{name}" for name, given in {"resume": resume, "overwrite": overwrite, "quiet": quiet}.items() if given
    ]
    arguments += ["--baseline", baseline] if baseline else []
    return launch.run(ranks or _ranks(plan.cohort), arguments, done=None if baseline else folder.done)


def _train(
    world: Any,
    found: launch.Launch | None,
    path: Path,
    out: Path | None,
    overrides: list[str] | None,
    resume: bool,
    overwrite: bool,
    baseline: str | None,
    quiet: bool,
) -> int:
    """This process is a rank, or the only one."""
    from fedmpi import rounds
    from fedmpi.cli.progress import Progress
    from fedmpi.comm import wrap

    comm: Any = wrap(world() if found is not None else None)
    launch.refuse_singletons(comm.size, comm.library)
    job = None
    error: Refused | None = None
    try:
        job = _read(path, overrides)
    except Refused as refused:
        error = refused
    comm.settle(error)
    assert job is not None
    folder = out or Path("runs") / job.name
    shown = comm.is_home and not quiet
    progress = Progress(job.name, job.rounds, comm.size) if shown else None
    try:
        if baseline is not None:
            rounds.baseline(job, comm, baseline, folder, on_round=progress.round if progress else None)
        else:
            rounds.train(
                job,
                comm,
                out=folder,
                resume=resume,
                overwrite=overwrite,
                on_round=progress.round if progress else None,
            )
    finally:
        if progress is not None:
            progress.stop()
    if progress is not None:
        progress.told(folder if baseline is None else folder / "baselines" / baseline, baseline)
    return 0
