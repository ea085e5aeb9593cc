"""Who takes part in a round and which rank serves whom: the same on every rank, so nothing is sent."""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import NDArray

from fedmpi.flow import Clients, entropy


def draw(seed: int, round: int, clients: int, size: int) -> Clients:
    """The cohort of a round: `size` of `clients` clients, without replacement, ascending; keyed by (seed, round)."""
    if size >= clients:
        return np.arange(clients, dtype=np.int64)
    random = np.random.default_rng(np.random.SeedSequence(entropy(seed, round)))
    return np.sort(random.choice(clients, size, replace=False, shuffle=False)).astype(np.int64)


def deal(costs: NDArray[np.int64], seats: int) -> list[list[int]]:
    """Places `0..len(costs)-1` of a cohort dealt to `seats` ranks, largest first, each to the least loaded rank.

    So ranks finish together (Graham 1969: within a third of the best).  Ties go to the lower place and seat.
    """
    hands: list[list[int]] = [[] for _ in range(seats)]
    loads = [(0, seat) for seat in range(seats)]
    for place in np.argsort(-costs, kind="stable").tolist():
        load, seat = loads[0]
        hands[seat].append(place)
        heapq.heapreplace(loads, (load + int(costs[place]), seat))
    return hands
