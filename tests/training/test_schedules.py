"""Schedules against their closed forms."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmpi.job import Component, JobError
from fedmpi.training import SCHEDULES

lawful = settings(derandomize=True, database=None, deadline=None, max_examples=60)
every = pytest.mark.parametrize("name", SCHEDULES)


@every
@lawful
@given(rounds=st.integers(1, 500))
def test_it_begins_at_one_and_never_grows_or_turns(name: str, rounds: int) -> None:
    factor = SCHEDULES[name]()
    factors = [factor(round, rounds) for round in range(1, rounds + 1)]
    assert factors[0] == 1.0
    assert all(0.0 <= later <= earlier for earlier, later in itertools.pairwise(factors))


def closed(value: Callable[[int, int], float], name: str, **options: Any) -> tuple[str, dict[str, Any], Any]:
    return name, options, value


@pytest.mark.parametrize(
    ("name", "options", "value"),
    [
        closed(lambda t, rounds: 1.0, "constant"),
        closed(lambda t, rounds: 0.9 ** (t - 1), "exponential", decay=0.9),
        closed(lambda t, rounds: 1.0, "exponential", decay=1.0),
        closed(lambda t, rounds: 1 - (t - 1) / rounds, "linear"),
        closed(lambda t, rounds: 1 - 0.8 * (t - 1) / rounds, "linear", end=0.2),
        closed(lambda t, rounds: 0.5 ** math.floor((t - 1) / 3), "step", every=3, factor=0.5),
        closed(lambda t, rounds: math.cos(math.pi * (t - 1) / rounds / 2) ** 2, "cosine"),
        closed(lambda t, rounds: 0.1 + 0.9 * math.cos(math.pi * (t - 1) / rounds / 2) ** 2, "cosine", end=0.1),
    ],
)
def test_closed_forms(name: str, options: dict[str, Any], value: Callable[[int, int], float]) -> None:
    factor = SCHEDULES.choose(Component(name=name, **options))
    for rounds in (1, 2, 7, 40):
        for t in range(1, rounds + 1):
            assert factor(t, rounds) == pytest.approx(value(t, rounds), abs=1e-12)


@pytest.mark.parametrize("name", ["linear", "cosine"])
@pytest.mark.parametrize("end", [0.0, 0.5, 1.0, 2.0])
def test_whatever_end_is_taken_the_first_round_has_one_and_the_round_after_the_last_has_it(
    name: str, end: float
) -> None:
    try:
        factor = SCHEDULES[name](end=end)
    except ValueError:
        assert end > 1  # a warm-up may be refused, but not be something else
        return
    assert factor(1, 10) == pytest.approx(1.0)
    assert factor(11, 10) == pytest.approx(end)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("exponential", {"decay": 0.0}),
        ("exponential", {"decay": 1.5}),
        ("linear", {"end": -0.1}),
        ("step", {"every": 0}),
        ("step", {"factor": 0.0}),
        ("cosine", {"end": -1.0}),
        ("linear", {"end": float("nan")}),
    ],
)
def test_a_wrong_value_is_refused_by_field(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(JobError, match=rf"local\.schedule.*{next(iter(options))}"):
        SCHEDULES.choose(Component(name=name, **options))
