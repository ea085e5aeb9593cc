"""`fedmpi evaluate`, `predict` and `report`: the uses of a trained model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The run's folder.")],
    on: Annotated[Path | None, typer.Option(help="The shard set to score on.  [the run's own]")] = None,
    checkpoint: Annotated[str, typer.Option(help="Which model: final, or best.")] = "final",
    metrics: Annotated[str | None, typer.Option(help="Metrics, with commas between.  [the job's]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> int:
    """Score a trained model on held-out examples: centrally, client by client, and by clients' own models."""
    from fedmpi.cli.progress import CLIENTS
    from fedmpi.use.evaluate import score
    from fedmpi.use.load import load

    scores = score(load(run, checkpoint, on), metrics.split(",") if metrics else None)
    if as_json:
        typer.echo(json.dumps(scores))
        return 0
    for name, value in scores.get("test", {}).items():
        typer.echo(f"test      {name:<12} {_number(value)}")
    for kind, owner in CLIENTS.items():
        for name, spread in scores.get(kind, {}).items():
            values = ", ".join(f"{word.replace('_', ' ')} {_number(value)}" for word, value in spread.items())
            typer.echo(f"{owner:<9} {name:<12} {values}")
    return 0


def _number(value: float | None) -> str:
    """Return a score with four decimals, "-" for None."""
    return "-" if value is None else f"{value:.4f}"


def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The run's folder.")],
    source: Annotated[
        Path, typer.Option(help="Examples: .npz (x), .npy, or a .csv with the training columns, by name.")
    ],
    out: Annotated[Path, typer.Option(help="Predictions: .csv or .npz.")],
    checkpoint: Annotated[str, typer.Option(help="Which model: final, or best.")] = "final",
    client: Annotated[str | None, typer.Option(metavar="ID", help="Use this client's own model.")] = None,
) -> int:
    """Use a trained model: a prediction for each example, with probabilities where there are classes."""
    from fedmpi.use.load import load
    from fedmpi.use.predict import predictions

    count = predictions(load(run, checkpoint, client=client), source, out)
    typer.echo(f"{count} prediction{'s' * (count != 1)} in {out}")
    return 0


def report(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN ...", help="One run's folder, or several to lay over each other.")
    ],
    out: Annotated[Path | None, typer.Option(help="The HTML file.  [report.html in the first folder]")] = None,
) -> int:
    """Draw a report: curves, spread over clients, time and bytes, in one HTML file with its pictures beside it."""
    from fedmpi.report.page import write_report

    typer.echo(f"report in {write_report(runs, out)}")
    return 0
