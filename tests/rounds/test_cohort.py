"""A cohort is a fair draw that every rank makes alike; a deal serves every client once, and ranks finish together."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmpi.rounds.cohort import deal, draw

lawful = settings(derandomize=True, database=None, deadline=None, max_examples=150)
seeds = st.integers(0, 2**63 - 1)
costs_of = st.lists(st.integers(0, 10_000), max_size=60)


@lawful
@given(seed=seeds, round=st.integers(1, 10**6), clients=st.integers(1, 500), data=st.data())
def test_a_cohort_is_a_sample_without_replacement_in_order(
    seed: int, round: int, clients: int, data: st.DataObject
) -> None:
    size = data.draw(st.integers(1, clients))
    cohort = draw(seed, round, clients, size)
    assert cohort.dtype == np.int64
    assert len(cohort) == size
    assert (np.diff(cohort) > 0).all()
    assert cohort[0] >= 0
    assert cohort[-1] < clients
    assert np.array_equal(cohort, draw(seed, round, clients, size))


@pytest.mark.parametrize("clients", [1, 7])
def test_all_clients_are_all_of_them(clients: int) -> None:
    for size in (clients, clients + 3):
        assert draw(0, 1, clients, size).tolist() == list(range(clients))


def test_rounds_and_seeds_draw_differently() -> None:
    seen = {tuple(draw(seed, round, 1000, 10)) for seed in range(20) for round in range(1, 51)}
    assert len(seen) == 1000


@pytest.mark.parametrize(("clients", "size"), [(20, 1), (20, 5), (50, 49), (3, 2)])
def test_every_client_is_as_likely(clients: int, size: int) -> None:
    """Chi-square over many rounds, five standard deviations wide."""
    rounds = 4000
    counts = np.zeros(clients)
    for round in range(1, rounds + 1):
        counts[draw(5, round, clients, size)] += 1
    share = size / clients
    # Within a round clients exclude each other: the statistic is (1 - share) k / (k - 1) times a chi-square of k - 1.
    statistic = ((counts - rounds * share) ** 2).sum() / (rounds * share * (1 - share)) * (clients - 1) / clients
    assert abs(statistic - (clients - 1)) < 5 * math.sqrt(2 * (clients - 1))


def test_pairs_are_as_likely_too() -> None:
    """So no client comes with its neighbour more often than by chance."""
    rounds, clients, size = 4000, 8, 3
    together = np.zeros((clients, clients))
    for round in range(1, rounds + 1):
        cohort = draw(9, round, clients, size)
        together[np.ix_(cohort, cohort)] += 1
    pairs = together[np.triu_indices(clients, 1)]
    expected = rounds * size * (size - 1) / (clients * (clients - 1))
    assert (abs(pairs - expected) < 5 * math.sqrt(expected)).all()


def test_a_draw_of_few_among_many_is_quick() -> None:
    assert len(draw(1, 1, 10**8, 100)) == 100


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
