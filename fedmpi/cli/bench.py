"""`fedmpi bench`: what this machine makes of a job, beside the floor."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from fedmpi import launch
from fedmpi.tell import Refused


def bench(
    context: typer.Context,
    job: Annotated[
        str, typer.Argument(metavar="[JOB]", help="A job file, or one of 2nn, logistic, wide: drawn at random.")
    ] = "2nn",
    ranks: Annotated[
        int | None,
        typer.Option("-n", "--ranks", min=1, help="Ranks: a server, and one for each core to serve clients."),
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Override a field of the job; repeatable.")
    ] = None,
    engines: Annotated[
        str, typer.Option(help="Engines to compare, with commas between.")
    ] = "sequential,traced,batched",
    scaling: Annotated[
        str | None, typer.Option(help="Numbers of ranks for the scaling table.  [1, 2, 3, 5, ... up to -n]")
    ] = None,
    pairs: Annotated[int, typer.Option(min=1, help="How often each is measured, in turn with the floor.")] = 3,
    rounds: Annotated[int, typer.Option(min=2, help="Rounds of each measurement.")] = 12,
    out: Annotated[Path, typer.Option(help="The folder of bench.json and its pictures.")] = Path("bench"),
    append: Annotated[
        Path | None, typer.Option(help="A file of Markdown to append the scaling table to: benchmarks/scaling.md.")
    ] = None,
    launcher: Annotated[
        str | None, typer.Option(help="What starts ranks in place of mpirun: 'srun --mpi=pmix -n {ranks}'.")
    ] = None,
    part: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> int:
    """Measure the floor, engines, whole rounds, collectives and memory, each in new processes."""
    if part is not None:
        from fedmpi.bench.parts import answer

        answer(json.loads(part), context.obj() if launch.world() else None)
        return 0
    if launch.world() is not None:
        raise Refused("bench starts ranks of its own: run it once, outside mpirun or srun (see --launcher)")
    return _measured(job, ranks, overrides or [], engines, scaling, pairs, rounds, out, append, launcher)


def _measured(
    name: str,
    ranks: int | None,
    overrides: list[str],
    engines: str,
    scaling: str | None,
    pairs: int,
    rounds: int,
    out: Path,
    append: Path | None,
    launcher: str | None,
) -> int:
    from fedmpi.bench import shown
    from fedmpi.bench.suite import Suite, scaling_default, write
    from fedmpi.bench.work import WORK
    from fedmpi.cli.progress import Steps, console
    from fedmpi.cli.train import default_ranks
    from fedmpi.job import read
    from fedmpi.plan import assemble
    from fedmpi.rounds.loops import LOOPS

    if launcher is not None and "{ranks}" not in launcher:
        raise typer.BadParameter("say where the number of ranks goes: {ranks}", param_hint="--launcher")
    wanted = {part.strip(): json.dumps(part.strip()) for part in engines.split(",") if part.strip()}
    numbers = _numbers(scaling)
    path = WORK[name].make(name, out) if name in WORK and not Path(name).exists() else Path(name)
    plan = assemble(read(path, overrides), loops=LOOPS)
    for engine in wanted.values():  # a wrong one is refused before anything is measured
        assemble(read(path, [*overrides, f"local.engine={engine}"]), loops=LOOPS, try_out=False)
    size = ranks or default_ranks(plan.cohort)
    steps = Steps()
    suite = Suite(
        path, tuple(overrides), size, wanted, pairs, rounds, numbers or tuple(scaling_default(size)), out, launcher,
        steps.next,
    )  # fmt: skip
    try:
        found = suite.run(plan)
    finally:
        steps.stop()
    file = write(found, out)
    console().print(shown.tables(found))
    if append is not None:
        shown.append(found, append)
    pictures = []
    if find_spec("matplotlib") is not None:
        for picture in shown.pictures(found):
            (out / f"{picture.name}.png").write_bytes(picture.png)
            pictures.append(f"{picture.name}.png")
    said = f"figures in {file}" + (f", pictures {', '.join(pictures)} beside it" if pictures else "")
    typer.echo(said + (f"; appended to {append}" if append else ""))
    return 0


def _numbers(text: str | None) -> tuple[int, ...]:
    """Return the numbers of ranks named with commas between; BadParameter where one is none."""
    if text is None:
        return ()
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) for part in parts):
        raise typer.BadParameter(f"{text!r} given; write numbers of ranks, as 1,2,5", param_hint="--scaling")
    return tuple(sorted({int(part) for part in parts}))
