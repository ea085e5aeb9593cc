"""The pace of ranks: what is fitted is what they were, and clients dealt by it are through sooner."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmpi.cohort.deal import MOST, deal
from fedmpi.cohort.pace import ROUNDS, Paces
from fedmpi.cohort.seating import Seating

lawful = settings(derandomize=True, database=None, deadline=None, max_examples=60)


def told(slowness: list[float], a: float, b: float, rounds: int, noise: float = 0.0, seed: int = 0) -> np.ndarray:
    random, seats = np.random.default_rng(seed), len(slowness)
    paces = Paces(seats)
    loads = []
    for number in range(rounds):
        clients = random.integers(1, 20, seats).astype(float)
        work = clients * random.uniform(10, 200, seats)
        loads.append((clients, work))
        seconds = (a * clients + b * work) * slowness * random.uniform(1 - noise, 1 + noise, seats)
        paces.note(np.array([number]), seconds)
    return paces.fit(lambda cohort: loads[int(cohort[0])])


@lawful
@given(
    st.lists(st.floats(0.3, 3.0), min_size=2, max_size=6), st.floats(0, 0.1), st.floats(1e-5, 1e-2), st.integers(0, 99)
)
def test_what_is_fitted_is_what_they_were(slowness: list[float], a: float, b: float, seed: int) -> None:
    """The seconds it foretells are the ranks' own, whatever part of them is one or the other."""
    fitted = told(slowness, a, b, 2 * ROUNDS, seed=seed)
    scale = np.median(slowness)
    for clients, work in ((1.0, 10.0), (10.0, 1000.0), (3.0, 600.0)):
        for seat, slow in enumerate(slowness):
            right = (a * clients + b * work) * slow
            guess = (fitted[0] * clients + fitted[1] * work) * fitted[2 + seat]
            near = 0.35 if abs(slow / scale - 1) < 0.12 else 0.25  # within a tenth of the others all count as even
            assert guess == pytest.approx(right, rel=near)


def test_ranks_alike_are_even_though_their_times_are_noisy() -> None:
    fitted = told([1.0, 1.0, 1.0, 1.0], 0.01, 1e-3, ROUNDS + 1, noise=0.05)
    assert fitted[2:].tolist() == [1.0] * 4


def test_the_first_round_tells_nothing_and_neither_do_ranks_without_clients() -> None:
    paces = Paces(2)

    def loads(clients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.array([2.0, 0.0]), np.array([20.0, 0.0])

    assert not paces.fit(loads).any()
    assert not paces.note(np.arange(2), np.array([99.0, 1.0]))
    assert not paces.fit(loads).any()
    assert paces.note(np.arange(2), np.array([4.0, 1e-6]))
    a, b, *slowness = paces.fit(loads)
    assert 2 * a + 20 * b == pytest.approx(4.0)
    assert slowness == [1.0, 1.0]


@lawful
@given(st.lists(st.integers(1, 500), min_size=1, max_size=60), st.lists(st.floats(0.2, 5.0), min_size=1, max_size=7))
def test_slower_ranks_get_less_and_the_last_is_through_sooner(costs: list[int], slowness: list[float]) -> None:
    slow, each = np.array(slowness), np.array(costs, dtype=float)
    hands = deal(each, len(slow), slow)
    assert sorted(place for hand in hands for place in hand) == list(range(len(costs)))
    ends = [each[hand].sum() * one for hand, one in zip(hands, slow, strict=True)]
    blind = [each[hand].sum() * one for hand, one in zip(deal(each, len(slow)), slow, strict=True)]
    assert max(ends) <= max(*blind, 2 * each.sum() / (1 / slow).sum() + each.max() * slow.max()) + 1e-9
    # The last client of the slowest hand would not have been through sooner elsewhere.
    seat = int(np.argmax(ends))
    last = each[hands[seat][-1]] if hands[seat] else 0.0
    assert all(ends[seat] <= end + last * one + 1e-9 for end, one in zip(ends, slow, strict=True))


def test_large_cohorts_are_dealt_by_load_alone() -> None:
    costs, slow = np.ones(MOST // 2 + 1), np.array([1.0, 3.0])
    hands = deal(costs, 2, slow)
    assert len(hands[0]) / len(hands[1]) == pytest.approx(3.0, rel=0.01)


def test_a_seating_deals_by_what_home_tells() -> None:
    costs = lambda clients: np.full(len(clients), 100)  # noqa: E731
    paces = np.zeros(4)
    seatings = [Seating.of(me, 3, False, costs, paces=paces) for me in range(3)]
    clients = np.arange(12)
    assert [len(hand) for hand in seatings[1].hands(clients)] == [6, 6]
    paces[:] = 0.1, 0.001, 1.0, 2.0
    assert [len(hand) for hand in seatings[2].hands(clients)] == [8, 4]
    assert [part.tolist() for part in seatings[0].loads(clients)] == [[8.0, 4.0], [800.0, 400.0]]
    assert [len(hand) for hand in seatings[0].hands(clients, costs)] == [6, 6]  # costs of another kind
