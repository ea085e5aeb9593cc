"""`fedmpi shard`: data into HDF5 shards, dealt to clients."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedmpi.flow import Refused
from fedmpi.job import JobError


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
    seed: Annotated[int, typer.Option(min=0, help="Of everything drawn.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the shard set in the folder.")] = False,
) -> int:
    """Make a shard set.  Further options are the importer's and the partition's: --source PATH, --alpha 0.3, ..."""
    from fedmpi.data import deal_options, make

    for_importer, for_partition = deal_options(importer, partition, _pairs(context.args))
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
        progress=typer.echo,
    )
    for name, value in shards.summary().items():
        if isinstance(value, dict):  # of the first few clients, how many examples of each class
            for client, counts in value.items():
                held = ", ".join(f"{count} x {label}" for label, count in counts.items() if count)
                typer.echo(f"  {client:<10} {held[:100]}{' ...' if len(held) > 100 else ''}")
        else:
            told = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else value
            typer.echo(f"  {name:<10} {told}")
    return 0


def _pairs(words: list[str]) -> dict[str, str]:
    """`--alpha 0.3 --per-client=2` as a table."""
    pairs: dict[str, str] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            raise Refused(f"{word!r}: is not an option; write --NAME VALUE")
        name, equals, value = word[2:].partition("=")
        if not equals:
            if not rest:
                raise JobError(f"{word}: needs a value")
            value = rest.pop(0)
        pairs[name.replace("-", "_")] = value
    return pairs
