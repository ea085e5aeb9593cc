"""Laws of seating: every client of a cohort is served once, by the same rank in every rank's eyes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedmpi.cohort.seating import Seating

lawful = settings(derandomize=True, database=None, deadline=None, max_examples=60)
COSTS = np.random.default_rng(3).integers(0, 50, 200)


def costs(clients: NDArray[np.int64]) -> NDArray[np.int64]:
    return COSTS[clients]


def everyone(ranks: int, home_serves: bool, stay: bool) -> list[Seating]:
    return [Seating.of(me, ranks, home_serves, costs, stay) for me in range(ranks)]


cohorts = st.sets(st.integers(0, 199), max_size=30).map(lambda drawn: np.array(sorted(drawn), dtype=np.int64))


@lawful
@given(ranks=st.integers(1, 9), home_serves=st.booleans(), stay=st.booleans(), clients=cohorts)
def test_every_place_is_served_by_one_rank_and_all_ranks_agree(
    ranks: int, home_serves: bool, stay: bool, clients: NDArray[np.int64]
) -> None:
    seatings = everyone(ranks, home_serves, stay)
    served = {}
    for me, seating in enumerate(seatings):
        assert seating.hands(clients) == seatings[0].hands(clients)
        for place in seating.places(clients):
            assert place not in served
            served[place] = me
    assert sorted(served) == list(range(len(clients)))
    for seat, hand in enumerate(seatings[0].hands(clients)):
        assert all(served[place] == seatings[0].rank(seat) for place in hand)


@pytest.mark.parametrize("ranks", [2, 5])
def test_home_serves_nobody_unless_it_trains_or_is_alone(ranks: int) -> None:
    clients = np.arange(40)
    assert Seating.of(0, ranks, False, costs).places(clients) == []
    assert Seating.of(0, ranks, True, costs).places(clients)
    assert Seating.of(0, 1, False, costs).places(clients) == sorted(range(40), key=lambda place: -COSTS[place])


@lawful
@given(ranks=st.integers(1, 9), first=cohorts, second=cohorts)
def test_a_client_that_stays_is_served_by_the_same_rank_in_every_cohort(
    ranks: int, first: NDArray[np.int64], second: NDArray[np.int64]
) -> None:
    rank_of: dict[int, int] = {}
    for clients in (first, second):
        for me, seating in enumerate(everyone(ranks, False, stay=True)):
            for place in seating.places(clients):
                assert rank_of.setdefault(int(clients[place]), me) == me


def test_other_costs_deal_other_hands() -> None:
    seating = Seating.of(0, 3, True, costs)
    clients = np.arange(12)
    even = seating.hands(clients, lambda some: np.ones(len(some), dtype=np.int64))
    assert [len(hand) for hand in even] == [4, 4, 4]
