"""The deal of clients to ranks: the same on every rank, so nothing is sent."""

from __future__ import annotations

import heapq
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST = 2**21  # clients times seats, up to which every seat is looked at for every client


def deal(costs: NDArray[Any], seats: int, slowness: NDArray[np.float64] | None = None) -> list[list[int]]:
    """Deal places `0..len(costs)-1` of a cohort to `seats` ranks, largest first, each to the least loaded rank.

    So ranks finish together (Graham 1969: within a third of the best).  Ties go to the lower place and seat.  Where a
    seat takes `slowness` `(seats,)` times as long for the same cost, each goes to the rank that would be through with
    it first.
    """
    hands: list[list[int]] = [[] for _ in range(seats)]
    order = np.argsort(-costs, kind="stable").tolist()
    if slowness is not None and len(costs) * seats <= MOST:
        ends = np.zeros(seats)
        for place in order:
            then = ends + costs[place] * slowness
            seat = int(then.argmin())
            hands[seat].append(place)
            ends[seat] = then[seat]
        return hands
    each = [1.0] * seats if slowness is None else slowness.tolist()
    loads = [(0 * costs.dtype.type(0).item(), seat) for seat in range(seats)]
    for place in order:
        load, seat = loads[0]
        hands[seat].append(place)
        cost = costs[place].item()
        heapq.heapreplace(loads, (load + (cost if slowness is None else cost * each[seat]), seat))
    return hands
