"""The machine's own mpirun, for the tests that start real ranks."""

from __future__ import annotations

import pytest

from fedmpi.flow import Refused
from fedmpi.launch.local import Mpirun, find_mpirun


@pytest.fixture(scope="session")
def mpirun() -> Mpirun:
    try:
        return find_mpirun()
    except Refused as refused:
        pytest.skip(str(refused))
