"""The door: `python -m fedmpi`, and the only place that names COMM_WORLD."""

import sys
from typing import Any

from fedmpi import cli


def world() -> Any:
    """Every rank of this launch."""
    from mpi4py import MPI

    return MPI.COMM_WORLD


def main() -> None:
    code = cli.main(sys.argv[1:], world)
    if code and "mpi4py.MPI" in sys.modules:
        from fedmpi.comm.world import leave

        leave(code)  # every rank comes here: an exit by way of mpi4py would abort, with banners
    sys.exit(code)


if __name__ == "__main__":
    main()
