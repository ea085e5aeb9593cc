"""`fedmpi list` and `fedmpi doctor`: what there is, and what would run where."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from fedmpi.job import nearest, options

GIVEN = {  # what a room fills in, which a job cannot say
    "strategies": ("server",),
    "samplers": ("seed", "clients", "sizes", "ids", "size", "rate", "work"),
    "stages": ("cap", "clients", "clipped"),
    "partitions": ("y", "clients", "rng", "groups"),
    "importers": ("rng",),
    "models": ("shape", "outputs"),
    "tasks": ("scale", "dtype", "classes", "target_shape"),
}


def rooms() -> dict[str, Mapping[str, Callable[..., Any]]]:
    """Every dict of components, by what a job calls them."""
    from fedmpi.aggregation import STAGES
    from fedmpi.data import IMPORTERS, PARTITIONS
    from fedmpi.evaluation import TASKS
    from fedmpi.models import MODELS
    from fedmpi.optim import OPTIMIZERS
    from fedmpi.rounds.loops import LOOPS
    from fedmpi.rounds.samplers import SAMPLERS
    from fedmpi.strategies import STRATEGIES
    from fedmpi.training import SCHEDULES

    return {
        "strategies": STRATEGIES,
        "loops": LOOPS,
        "samplers": SAMPLERS,
        "stages": STAGES,
        "models": MODELS,
        "tasks": TASKS,
        "optimizers": OPTIMIZERS,
        "schedules": SCHEDULES,
        "importers": IMPORTERS,
        "partitions": PARTITIONS,
    }


def components() -> dict[str, dict[str, dict[str, Any]]]:
    """Room, name, then its options as `{option: default}` and what it is, in one line."""
    listed: dict[str, dict[str, dict[str, Any]]] = {}
    for room, registry in rooms().items():
        listed[room] = {}
        for name, factory in registry.items():
            found = {option: default for option, (_, default) in options(factory, GIVEN.get(room, ())).items()}
            about = (inspect.getdoc(factory) or "").split("\n")[0]
            if hasattr(factory, "metrics"):
                about += f"  Metrics: {', '.join(factory.metrics)}."
            listed[room][name] = {"options": found, "about": about}
    return listed


def list_(
    room: Annotated[str | None, typer.Argument(help="strategies, stages, models, ...; all where not given.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="As tables of Markdown.")] = False,
) -> int:
    """Every strategy, loop, sampler, stage, model, task, optimizer, schedule, importer, partition, with its options."""
    listed = components()
    if room is not None:
        if room not in listed:
            raise typer.BadParameter(
                f"{room!r} given; there are {', '.join(listed)}{nearest(room, listed)}", param_hint="ROOM"
            )
        listed = {room: listed[room]}
    if as_json:
        typer.echo(json.dumps(listed, indent=2, default=lambda value: None if value is ... else str(value)))
        return 0
    if markdown:
        for name, entries in listed.items():
            typer.echo(f"| {name} | options and their defaults | what it is |\n|---|---|---|")
            for entry, said in entries.items():
                typer.echo(f"| `{entry}` | {_shown(said['options']) or '-'} | {said['about']} |")
        return 0
    console = Console(highlight=False)
    for name, entries in listed.items():
        table = Table(
            title=name, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0)
        )
        table.add_column("name", style="cyan", no_wrap=True)
        table.add_column("options and their defaults")
        table.add_column("what it is")
        for entry, said in entries.items():
            table.add_row(entry, _shown(said["options"]) or "-", said["about"])
        console.print(table)
        console.print()
    return 0


def _shown(options: Mapping[str, Any]) -> str:
    return ", ".join(
        option if default is ... else f"{option} = {_toml(default)}" for option, default in options.items()
    )


def _toml(value: Any) -> str:
    if value is None:
        return "unset"
    return json.dumps(list(value) if isinstance(value, tuple) else value)


def doctor(
    ranks: Annotated[int | None, typer.Option("-n", "--ranks", min=1, help="Ranks to plan for.")] = None,
    job: Annotated[Path | None, typer.Option(help="A job file, to check with its data.")] = None,
) -> int:
    """What MPI, what GPUs, what would run where; exit status 1 where a job would fail."""
    from fedmpi.launch import doctor as surgery

    findings = surgery.examine(ranks)
    if job is not None:
        findings.append(_job(job))
    Console(highlight=False).print(surgery.show(findings))
    return 1 if any(finding.level == "fail" for finding in findings) else 0


def _job(path: Path) -> Any:
    """The job, read and put together as `fedmpi train` would."""
    from fedmpi.flow import Refused
    from fedmpi.job import read
    from fedmpi.launch.doctor import Finding
    from fedmpi.rounds import assemble

    try:
        plan = assemble(read(path))
    except Refused as refused:
        return Finding("fail", f"job {path}", str(refused), "change the job, or make its data with fedmpi shard")
    return Finding("ok", f"job {path}", f"{plan.shards.clients} clients, {plan.cohort} a round", "")
