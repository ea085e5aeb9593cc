"""The deal of clients to ranks: the same on every rank, so nothing is sent."""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import NDArray


def deal(costs: NDArray[np.int64], seats: int) -> list[list[int]]:
    """Deal places `0..len(costs)-1` of a cohort to `seats` ranks, largest first, each to the least loaded rank.

    So ranks finish together (Graham 1969: within a third of the best).  Ties go to the lower place and seat.
    """
    hands: list[list[int]] = [[] for _ in range(seats)]
    loads = [(0, seat) for seat in range(seats)]
    for place in np.argsort(-costs, kind="stable").tolist():
        load, seat = loads[0]
        hands[seat].append(place)
        heapq.heapreplace(loads, (load + int(costs[place]), seat))
    return hands
