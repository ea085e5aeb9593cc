"""The command `fedmpi` and its verbs: train, shard, evaluate, predict, report, bench, list, doctor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from fedmpi import tell
from fedmpi.cli.bench import bench
from fedmpi.cli.inspect import doctor, list_
from fedmpi.cli.shard import Shard, shard
from fedmpi.cli.train import train
from fedmpi.cli.use import evaluate, predict, report
from fedmpi.launch import waiting
from fedmpi.launch.detect import world as launched
from fedmpi.tell import Refused
from fedmpi.version import VERSION

app = typer.Typer(
    help="Federated learning for HPC, on MPI and PyTorch.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    """Print the version and leave, where it is wanted."""
    if wanted:
        typer.echo(f"fedmpi {VERSION}")
        raise typer.Exit


@app.callback()
def fedmpi(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    """Federated learning for HPC, on MPI and PyTorch."""


app.command()(train)
app.command(cls=Shard, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(shard)
app.command()(evaluate)
app.command()(predict)
app.command()(report)
app.command()(bench)
app.command(name="list")(list_)
app.command()(doctor)


def main(arguments: Sequence[str], world: Callable[[], Any]) -> int:
    """Run one verb and return the exit status; a person's mistake is one message, on one rank, without a traceback."""
    command = typer.main.get_command(app)
    try:
        code = command.main(args=list(arguments), prog_name="fedmpi", standalone_mode=False, obj=world)
        return code if isinstance(code, int) else 0
    except typer.Exit as left:
        return int(left.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        _tell("stopped", 130)
        return 130
    except Refused as refused:
        if refused.tells is None:
            _tell(str(refused), refused.code)
        elif refused.tells:
            tell.end(str(refused), refused.code)
        return refused.code
    except Exception as error:
        show = getattr(error, "show", None)  # click's own: a wrong option, shown with the usage
        if show is None:
            raise
        if _speaks():
            show()
        return int(getattr(error, "exit_code", 2))


def _tell(message: str, code: int) -> None:
    """Tell the reason why the command ends with `code`, on the first rank alone."""
    if _speaks():
        waiting("")
        tell.end(message, code)


def _speaks() -> bool:
    """Return whether this is the only process or the first rank, by its launcher: the ranks cannot agree on one yet."""
    launch = launched()
    return launch is None or not launch.rank
