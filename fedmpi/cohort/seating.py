"""The clients of each rank: the same on every rank, so nothing is sent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmpi.cohort.deal import deal
from fedmpi.flow import Clients

Costs = Callable[[Clients], NDArray[np.int64]]  # what it costs to serve each client
Groups = Callable[[Clients], list[list[int]]]  # the places of clients that train together


def serving(ranks: int, home_serves: bool) -> int:
    """Return how many of so many ranks serve clients: home where it must or should."""
    return ranks if home_serves or ranks == 1 else ranks - 1


@dataclass(frozen=True)
class Seating:
    """The serving ranks, in their order: `seats` of them, this rank on `seat`, None where it serves nobody.

    Clients are dealt by their cost, so ranks finish together; those that train in one of the `groups` are dealt as
    one.  Where clients `stay`, because their keepsakes lie in one rank's own memory, each is always served by the same
    rank.  `paces` `(2 + seats,)`, which home tells, are those of `Paces.fit`: where they are known, costs are seconds.
    """

    seat: int | None
    seats: int
    first: int  # the rank on seat 0: 1 where home serves nobody
    costs: Costs
    stay: bool = False
    groups: Groups | None = None
    paces: NDArray[np.float64] | None = None

    @classmethod
    def of(
        cls,
        me: int,
        ranks: int,
        home_serves: bool,
        costs: Costs,
        stay: bool = False,
        groups: Groups | None = None,
        paces: NDArray[np.float64] | None = None,
    ) -> Seating:
        """Return the seating of rank `me` among so many `ranks`; home, rank 0, serves where it must or should."""
        if serving(ranks, home_serves) == ranks:
            return cls(me, ranks, 0, costs, stay, groups, paces)
        return cls(me - 1 if me else None, ranks - 1, 1, costs, stay, groups, paces)

    def hands(self, clients: Clients, costs: Costs | None = None) -> list[list[int]]:
        """Return each seat's places among `clients`, by other `costs` where they are given."""
        if not len(clients):
            return [[] for _ in range(self.seats)]
        if self.stay:
            return [np.flatnonzero(clients % self.seats == seat).tolist() for seat in range(self.seats)]
        if costs is not None:
            return deal(costs(clients), self.seats)
        each, slowness = self._priced(clients)
        if self.groups is None:
            return deal(each, self.seats, slowness)
        groups = self.groups(clients)
        hands = deal(np.array([each[group].sum() for group in groups]), self.seats, slowness)
        return [[place for group in hand for place in groups[group]] for hand in hands]

    def _priced(self, clients: Clients) -> tuple[NDArray[Any], NDArray[np.float64] | None]:
        """Return the cost of each client, and the slowness of each seat where paces are known."""
        each = self.costs(clients)
        if self.paces is None or not self.paces.any():
            return each, None
        return self.paces[0] + self.paces[1] * each, self.paces[2:]

    def loads(self, clients: Clients) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return each seat's number of clients, and their costs `(seats,)`, as they are dealt now."""
        hands, each = self.hands(clients), self.costs(clients)
        return np.array([len(hand) for hand in hands], float), np.array([each[hand].sum() for hand in hands], float)

    def places(self, clients: Clients, costs: Costs | None = None) -> list[int]:
        """Return this rank's places among `clients`."""
        return [] if self.seat is None else self.hands(clients, costs)[self.seat]

    def rank(self, seat: int) -> int:
        """Return the rank on a seat."""
        return self.first + seat
