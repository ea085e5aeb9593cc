"""The entry of `python -m fedmpi`, and the only file to use COMM_WORLD."""

import sys
from contextlib import nullcontext
from typing import Any

from fedmpi import hear, launch, tell

SILENT = {"--quiet", "--dry-run", "-h", "--help"}


def world() -> Any:
    """Return the communicator of all ranks of this launch."""
    from mpi4py import MPI

    return MPI.COMM_WORLD


def main() -> None:
    """Run the command line, and exit with its status."""
    arguments = sys.argv[1:]
    trains = arguments[:1] == ["train"]
    here = launch.world() if trains else None
    # A rank listens before all else: its imports take seconds, and a signal without a listener kills.
    with hear.listening() if here else nullcontext():
        if here is not None:
            tell.hello(here.rank or 0)
        launch.waiting.wanted = trains and not SILENT & set(arguments) and (here is None or not here.rank)
        try:
            launch.waiting(f"importing torch{f' on {here.size} ranks' if here and here.size else ''}")
            from fedmpi import cli

            code = cli.main(arguments, world)
        except KeyboardInterrupt:  # in the middle of an import
            tell.end("stopped", 130)
            code = 130
        if code and "mpi4py.MPI" in sys.modules:
            from fedmpi.comm.leaving import leave

            leave(code)  # every rank comes here: an exit by way of mpi4py would abort, with banners
    sys.exit(code)


if __name__ == "__main__":
    main()
