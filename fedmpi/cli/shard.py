"""`fedmpi shard`: data into HDF5 shards, dealt to clients."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic.fields import FieldInfo
from typer.core import TyperCommand

from fedmpi.tell import Refused

KINDS = {int: "INTEGER", float: "NUMBER", str: "TEXT", Path: "PATH", bool: "true|false"}
OWN = ("out", "clients", "partition", "holdout", "files", "seed")  # options of the command that take a value


class Shard(TyperCommand):
    """The command, with the options of a named importer and partition in its help."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the words as usual, and keep them for the help."""
        ctx.meta["words"] = list(args)
        return super().parse_args(ctx, args)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the options of importer and partition, or the names of all importers."""
        from fedmpi.data import IMPORTERS, PARTITIONS

        importer, partition = _named(ctx.meta.get("words", []))
        if importer is None:
            text = f"fedmpi shard IMPORTER --help shows its options; there are {', '.join(IMPORTERS)}"
            formatter.write_paragraph()
            formatter.write_text(text)
        else:
            _section(formatter, f"Options of {importer}", IMPORTERS.options(importer))
        if importer is not None or partition is not None:
            partition = partition or "iid"
            _section(formatter, f"Options of --partition {partition}", PARTITIONS.options(partition))


def _named(words: list[str]) -> tuple[str | None, str | None]:
    """Return the importer and the partition in a command's words; some words may be missing or wrong."""
    importer = partition = None
    rest = iter(words)
    for word in rest:
        name, equals, value = word.partition("=")
        if name.startswith("-"):
            takes = not equals and name not in ("--help", "-h", "--overwrite")
            value = next(rest, "") if takes else value
            partition = value if name == "--partition" and not value.startswith("-") else partition
            if value in ("--help", "-h"):
                break
        elif importer is None:
            importer = word
    return importer, partition or None


def _section(formatter: Any, title: str, options: Mapping[str, tuple[Any, Any]]) -> None:
    """Write a section of the help: each option with its type, meaning and default."""
    rows = []
    for name, (kind, default) in options.items():
        word, meaning = _described(kind)
        ends = "[required]" if default is ... else "" if default in (None, "") else f"[{default}]"
        rows.append((f"--{name.replace('_', '-')} {word}", f"{meaning}  {ends}".strip()))
    with formatter.section(title):
        if rows:
            formatter.write_dl(rows)
        else:
            formatter.write_text("it has none")


def _described(kind: Any) -> tuple[str, str]:
    """Return an option's type in a word, and its meaning in a line."""
    meaning = ""
    if get_origin(kind) is Annotated:
        kind, *marks = get_args(kind)
        meaning = next((mark.description for mark in marks if isinstance(mark, FieldInfo) and mark.description), "")
    if get_origin(kind) in (Union, UnionType):
        kind = next(one for one in get_args(kind) if one is not type(None))
    if get_origin(kind) is Literal:
        return "|".join(map(str, get_args(kind))), meaning
    return KINDS.get(kind, "VALUE"), meaning


def shard(
    context: typer.Context,
    importer: Annotated[str, typer.Argument(metavar="IMPORTER", help="digits, idx, npz, csv, ...: see `fedmpi list`.")],
    out: Annotated[Path, typer.Option(help="The shard set's folder.")],
    clients: Annotated[
        int | None, typer.Option(min=1, help="Clients to deal to; a natural partition counts its own.")
    ] = None,
    partition: Annotated[str, typer.Option(help="iid, shards, labels, dirichlet, dirichlet-client, natural.")] = "iid",
    holdout: Annotated[
        float | None,
        typer.Option(min=0.0, max=0.9, help="Share of each client kept aside.  [0.2 where there is no test split]"),
    ] = None,
    files: Annotated[int, typer.Option(min=1, help="Shard files.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of all random draws.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the shard set in the folder.")] = False,
) -> int:
    """Make a shard set.  Further options are the importer's and the partition's: --source PATH, --alpha 0.3, ..."""
    from fedmpi.cli.progress import Work
    from fedmpi.data import make
    from fedmpi.job import JobError

    if importer.startswith("-"):
        raise JobError(f"{importer}: the importer comes first: fedmpi shard csv --source FILE ...")
    work = Work()
    try:
        for_importer, for_partition = _sorted(importer, partition, _pairs(context.args))
        shards = make(
            importer,
            out,
            clients=clients,
            partition=partition,
            source_options=for_importer,
            partition_options=for_partition,
            holdout=holdout,
            files=files,
            seed=seed,
            overwrite=overwrite,
            progress=work.line,
            written=work.done,
        )
    except Refused as refused:
        raise _in_words(refused, importer, partition) from None
    finally:
        work.stop()
    for name, value in shards.summary().items():
        if isinstance(value, dict):  # of the first few clients, how many examples of each class
            for client, counts in value.items():
                held = ", ".join(f"{count} x {label}" for label, count in counts.items() if count)
                typer.echo(f"  {client:<10} {held[:100]}{' ...' if len(held) > 100 else ''}")
        else:
            text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else value
            typer.echo(f"  {name:<10} {text}")
    return 0


def _sorted(importer: str, partition: str, given: dict[str, str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options of importer and partition apart; an unknown one raises JobError in the command's words."""
    from fedmpi.data import deal_options
    from fedmpi.job import JobError, nearest

    known = _options(importer, partition)
    for name in given:
        if name not in known:
            there = (
                ", ".join(f"--{each.replace('_', '-')}" for each in known if each not in (*OWN, "overwrite")) or "none"
            )
            likely = nearest(name, known).replace("did you mean '", "did you mean '--").replace("_", "-")
            word = f"--{name.replace('_', '-')}"
            raise JobError(f"{word}: is not an option here; {importer} by {partition} has {there}{likely}")
    return deal_options(importer, partition, given)


def _options(importer: str, partition: str) -> list[str]:
    """Return the names of all options: the importer's, the partition's and the command's own."""
    from fedmpi.data import IMPORTERS, PARTITIONS

    return [*dict.fromkeys([*IMPORTERS.options(importer), *PARTITIONS.options(partition), *OWN, "overwrite"])]


def _in_words(refused: Refused, importer: str, partition: str) -> Refused:
    """Return a refusal with options named as in the command: `--target`, where a script has importer.target."""
    try:
        known = _options(importer, partition)
    except Refused:
        return refused  # it is about an unknown importer or partition
    names = "|".join(known)
    lines = [
        re.sub(rf"^(?:(?:importer|partition)\.)?({names})(?=[:,])", lambda match: _word(match[1]), line)
        for line in str(refused).split("\n")
    ]
    renamed = type(refused)("\n".join(lines))
    renamed.tells = refused.tells
    return renamed


def _word(name: str) -> str:
    """Return an option as the command line writes it."""
    return f"--{name.replace('_', '-')}"


def _pairs(words: list[str]) -> dict[str, str]:
    """Return `--alpha 0.3 --per-client=2` as a table of names and values."""
    from fedmpi.job import JobError

    pairs: dict[str, str] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            raise JobError(f"{word!r}: is not an option; write --NAME VALUE")
        name, equals, value = word[2:].partition("=")
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise JobError(f"{word}: needs a value; one that begins with -- is written {word}=VALUE")
            value = rest.pop(0)
        if name.replace("-", "_") in pairs:
            raise JobError(f"--{name}: is given twice; a list has commas between: --{name} a,b")
        pairs[name.replace("-", "_")] = value
    return pairs
