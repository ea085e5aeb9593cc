"""`fedmpi list` and `fedmpi doctor`: the components with their options, and the state of the machine."""

from __future__ import annotations

import inspect
import json
import re
import shutil
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from rich.console import Console


def components() -> dict[str, dict[str, dict[str, Any]]]:
    """Return every component by room and name: its options as `{option: default}`, and a line about it."""
    from fedmpi.job import registries

    listed: dict[str, dict[str, dict[str, Any]]] = {}
    for room, registry in registries().items():
        listed[room] = {}
        for name, factory in registry.items():
            defaults = {option: default for option, (_, default) in registry.options(name).items()}
            about = (inspect.getdoc(factory) or "").split("\n")[0]
            if hasattr(factory, "metrics"):
                about += f"  Metrics: {', '.join(factory.metrics)}."
            listed[room][name] = {"options": defaults, "about": about}
    return listed


def list_(
    room: Annotated[str | None, typer.Argument(help="strategies, stages, models, ...; all where not given.")] = None,
    name: Annotated[str | None, typer.Argument(help="One of them, in full.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="As tables of Markdown.")] = False,
) -> int:
    """Every strategy, loop, sampler, stage, model, task, optimizer, schedule, importer, partition, with its options."""
    listed = components()
    if room is not None:
        listed = {room: listed[_known(room, listed, "ROOM")]}
        if name is not None:
            listed = {room: {name: listed[room][_known(name, listed[room], "NAME")]}}
    if as_json:
        typer.echo(json.dumps(listed, indent=2, default=lambda value: None if value is ... else str(value)))
    elif markdown:
        for title, entries in listed.items():
            typer.echo(f"| {title} | options and their defaults | what it is |\n|---|---|---|")
            for entry, facts in entries.items():
                typer.echo(f"| `{entry}` | {_shown(facts['options']) or '-'} | {facts['about']} |")
    elif room is not None and name is not None:
        typer.echo(_wrapped(_entry(room, name)))
    else:
        for title, entries in listed.items():
            lines = [title]
            for entry, facts in entries.items():
                lines += [
                    "",
                    f"  {entry}",
                    *(f"      {part}" for part in (facts["about"], _shown(facts["options"])) if part),
                ]
            typer.echo(_wrapped([*lines, ""]))
    return 0


def _known(word: str, words: Iterable[str], hint: str) -> str:
    """Return a word of `words`; any other raises BadParameter with the nearest one."""
    from fedmpi.job import nearest

    if word not in words:
        message = f"{word!r} given; there are {', '.join(words)}{nearest(word, words)}"
        raise typer.BadParameter(message, param_hint=hint)
    return word


def _wrapped(lines: Iterable[str]) -> str:
    """Return lines as one text, wrapped to the terminal, each under its own indent."""
    width = max(40, min(100, shutil.get_terminal_size().columns))
    wrapped: list[str] = []
    for line in lines:
        indent = " " * (len(line) - len(line.lstrip()))
        text = line.strip()
        wrapped += textwrap.wrap(
            text, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
        ) or [""]
    return "\n".join(wrapped)


def _entry(room: str, name: str) -> list[str]:
    """Return all lines about one component: its docstrings, and its options with type, default and meaning."""
    from fedmpi.job import registries

    registry = registries()[room]
    factory = registry[name]
    module = inspect.getmodule(factory)
    texts = [inspect.getdoc(factory) or ""]
    if module is not None and sum(inspect.getmodule(other) is module for other in registry.values()) == 1:
        texts.append(inspect.getdoc(module) or "")  # a module of its own names the paper and its equations
    lines = [f"{name}, one of the {room}" + ("" if registry.text else f" ({registry.field} of a job)")]
    for text in texts:
        for paragraph in text.split("\n\n"):
            lines += ["", " ".join(paragraph.split())]
    lines += ["", "options"]
    taken = registry.options(name)
    for option, (kind, default) in taken.items():
        usual = "must be given" if default is ... else f"{_toml(default)} where not given"
        lines.append(f"  {option}: {_kind(kind)}; {usual}")
        lines += [f"      {meaning}" for meaning in _meanings(option, " ".join(texts))]
    lines += [] if taken else ["  none"]
    return lines + (["", f"metrics: {', '.join(factory.metrics)}"] if hasattr(factory, "metrics") else [])


def _meanings(option: str, text: str) -> list[str]:
    """Return the sentences of a docstring about an option, the first two."""
    sentences = re.split(r"(?<=[.])(?<!al\.)\s+", " ".join(text.split()))
    return [sentence for sentence in sentences if f"`{option}`" in sentence][:2]


def _kind(kind: Any) -> str:
    """Return a type in words, for the values a job may have there: "a number above 0", "true or false"."""
    if get_origin(kind) is Annotated:
        inner, *rest = get_args(kind)
        bounds = [part for one in rest for part in getattr(one, "metadata", [one])]
        signs = {"gt": "above", "ge": "from", "lt": "below", "le": "to"}
        ends = [(sign, getattr(part, sign)) for part in bounds for sign in signs if hasattr(part, sign)]
        limits = [f"{signs[sign]} {end:g}" for sign, end in ends if end < 2**31]  # larger ones only keep sums finite
        return " ".join([_kind(inner), *limits])
    if get_origin(kind) is Literal:
        return " or ".join(_toml(value) for value in get_args(kind))
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(_kind(part) for part in get_args(kind) if part is not type(None))
    if get_origin(kind) in (tuple, list):
        parts = dict.fromkeys(_kind(part) for part in get_args(kind) if part is not ...)
        return f"a list, each {' or '.join(parts)}"
    words = {int: "a whole number", float: "a number", str: "a string", bool: "true or false", Any: "anything"}
    return words.get(kind, getattr(kind, "__name__", "anything"))


def _shown(options: Mapping[str, Any]) -> str:
    """Return options in one line, each with its default where it has one."""
    return ", ".join(
        option if default is ... else f"{option} = {_toml(default)}" for option, default in options.items()
    )


def _toml(value: Any) -> str:
    """Return a value as a job file writes it, "unset" for None."""
    if value is None:
        return "unset"
    return json.dumps(list(value) if isinstance(value, tuple) else value)


def doctor(
    ranks: Annotated[int | None, typer.Option("-n", "--ranks", min=1, help="Ranks to plan for.")] = None,
    job: Annotated[Path | None, typer.Option(help="A job file, to check with its data.")] = None,
) -> int:
    """Examine MPI, GPUs, cores and the placement of ranks; exit status 1 where a job would fail."""
    from fedmpi.launch.doctor import code, examine, show

    findings = examine(ranks)
    if job is not None:
        findings.append(_job(job))
    Console(highlight=False).print(show(findings))
    return code(findings)


def _job(path: Path) -> Any:
    """Return the finding of a job, read and assembled as `fedmpi train` would do it."""
    from fedmpi.flow import Refused
    from fedmpi.job import read
    from fedmpi.launch.doctor import Finding
    from fedmpi.plan import assemble
    from fedmpi.rounds.loops import LOOPS

    try:
        plan = assemble(read(path), loops=LOOPS)
    except Refused as refused:
        return Finding("fail", f"job {path}", str(refused), "change the job, or make its data with fedmpi shard")
    return Finding("ok", f"job {path}", f"{plan.shards.clients} clients, {plan.cohort} a round", "")
