"""The state: a header's words survive lying behind floats."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmpi.flow import State
from fedmpi.tell import Interrupted

lawful = settings(derandomize=True, database=None, deadline=None, max_examples=50)
DTYPES = [torch.float32, torch.float64]


@lawful
@given(
    round=st.integers(0, 2**63 - 1),
    code=st.integers(0, 255),
    private=st.sampled_from([0, 16]),
    down=st.integers(1, 2),
    dtype=st.sampled_from(DTYPES),
)
def test_a_header_survives_being_sent_as_floats(
    round: int, code: int, private: int, down: int, dtype: torch.dtype
) -> None:
    home, other = (State(private, 32, down, dtype) for _ in range(2))
    home.planes.fill_(0.5)
    home.round = round
    home.crossing = 1
    home.said[:] = [0.1, -1e300, 3.0, float(round)]
    assert not home.done
    home.ended(code)
    other.travels.copy_(home.travels)
    assert (other.round, other.crossing, other.done, other.code) == (round, 1, True, code)
    assert other.said.tolist() == home.said.tolist()
    assert torch.equal(other.planes, home.planes)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_received_is_the_private_part_and_the_first_plane_in_the_buffer_that_travels(dtype: torch.dtype) -> None:
    state = State(16, 32, 2, dtype)
    assert state.received.shape == (48,)
    assert state.planes.shape == (2, 32)
    state.travels.fill_(1.0)
    assert not state.received[:16].any()
    assert (state.received[16:] == 1.0).all()
    state.planes[1].fill_(2.0)
    assert (state.received[16:] == 1.0).all()
    assert state.received.data_ptr() % 64 == 0


def test_a_run_that_was_asked_to_end_is_interrupted_and_no_other() -> None:
    for code in (0, 1, Interrupted.code):
        state = State(0, 8, 1, torch.float32)
        assert not state.interrupted
        state.ended(code)
        assert state.interrupted == (code == Interrupted.code)
