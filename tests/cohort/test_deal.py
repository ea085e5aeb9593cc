"""A deal serves every client once, and ranks finish together."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmpi.cohort.deal import deal

lawful = settings(derandomize=True, database=None, deadline=None, max_examples=150)
seeds = st.integers(0, 2**63 - 1)
costs_of = st.lists(st.integers(0, 10_000), max_size=60)


@lawful
@given(costs=costs_of, seats=st.integers(1, 12))
def test_a_deal_serves_every_place_once(costs: list[int], seats: int) -> None:
    hands = deal(np.array(costs, dtype=np.int64), seats)
    assert len(hands) == seats
    assert sorted(place for hand in hands for place in hand) == list(range(len(costs)))
    assert hands == deal(np.array(costs, dtype=np.int64), seats)


@lawful
@given(costs=st.lists(st.integers(0, 10_000), min_size=1, max_size=60), seats=st.integers(1, 12))
def test_the_fullest_hand_is_near_the_mean(costs: list[int], seats: int) -> None:
    loads = [sum(costs[place] for place in hand) for hand in deal(np.array(costs, dtype=np.int64), seats)]
    assert max(loads) <= sum(costs) / seats + (1 - 1 / seats) * max(costs) + 1e-9


@lawful
@given(costs=st.lists(st.integers(1, 20), min_size=1, max_size=7), seats=st.integers(1, 3))
def test_the_fullest_hand_is_within_a_third_of_the_best(costs: list[int], seats: int) -> None:
    """Against every deal there is (Graham 1969)."""
    loads = [sum(costs[place] for place in hand) for hand in deal(np.array(costs, dtype=np.int64), seats)]
    best = min(
        max(
            sum(cost for place, cost in enumerate(costs) if code // seats**place % seats == seat)
            for seat in range(seats)
        )
        for code in range(seats ** len(costs))
    )
    assert max(loads) <= (4 / 3 - 1 / (3 * seats)) * best + 1e-9


def test_equal_clients_are_dealt_in_turn() -> None:
    assert deal(np.full(7, 5), 3) == [[0, 3, 6], [1, 4], [2, 5]]


def test_costs_beyond_32_bits_are_counted() -> None:
    hands = deal(np.array([2**40, 2**40, 1, 1]), 2)
    assert sorted(map(sorted, hands)) == [[0, 2], [1, 3]]
