"""A line of the journal: seconds that add up, and ranks that waited."""

from __future__ import annotations

import numpy as np

from fedmpi.rounds.line import Watch, add, idle, seconds


def watch(**at: float) -> Watch:
    one = Watch()
    one.at.update(at)
    return one


def test_the_reduction_is_never_more_than_what_came_after_the_slowest_rank() -> None:
    marks = watch(received=1.0, scored=1.5, arrived=4.0, reduced=6.0, stepped=6.5)
    quick = seconds(marks, serving=2.5, training=2.0)
    assert quick == {"broadcast": 1.0, "train": 2.0, "reduce": 2.0, "step": 0.5, "evaluate": 0.0, "total": 6.5}
    assert seconds(marks, serving=4.5, training=4.5)["reduce"] == 0.5  # this rank waited for it
    assert seconds(marks, serving=9.0, training=9.0)["reduce"] == 0.0


def test_idle_is_the_share_of_the_slowest_ranks_seconds() -> None:
    assert idle(np.array([1.0, 4.0, 3.0])) == [0.75, 0.0, 0.25]
    assert idle(np.zeros(2)) == [0.0, 0.0]


def test_a_round_of_two_crossings_has_the_seconds_and_bytes_of_both() -> None:
    first = {"round": 1, "steps": 0, "seconds": {"total": 1.0}, "bytes": {"up": 10, "down": 20}}
    second = {"round": 1, "steps": 7, "seconds": {"total": 2.5}, "bytes": {"up": 1, "down": 2}}
    assert add({}, dict(first)) == first
    assert add(first, second) == {
        "round": 1,
        "steps": 7,
        "seconds": {"total": 3.5},
        "bytes": {"up": 11, "down": 22},
    }
