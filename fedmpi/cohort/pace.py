"""The pace of each serving rank, fitted to the times of the last rounds: seconds = slowness * (a * clients + b * work).

Tang et al. 2023, "FedML Parrot: A Scalable Federated Learning System via Heterogeneity-aware Scheduling on Sequential
and Hierarchical Training", equation 4.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fedmpi.flow import Clients

Floats = NDArray[np.float64]

ROUNDS = 8  # of which the times count
SOON = (2, 3, 5)  # rounds after which a first fit is made; later ones come every ROUNDS
STEPS = 4  # of the fit
EVEN = 0.1  # a rank within this of the others' pace is as fast as they are: times are noisy


class Paces:
    """The times of so many `seats`; home notes each round, and tells everybody what `fit` returns when one is due."""

    def __init__(self, seats: int) -> None:
        self.seats, self.count = seats, 0
        self.rounds: deque[tuple[Clients, Floats]] = deque(maxlen=ROUNDS)

    def note(self, clients: Clients, seconds: Floats) -> bool:
        """Take note of a round's cohort and each seat's seconds `(seats,)`; return whether a fit is due.

        A first round is of no use: what is done once is in its times, imports, recordings, pages met the first time.
        Between two fits clients are dealt alike.
        """
        self.count += 1
        if self.count == 1:
            return False
        self.rounds.append((clients, seconds))
        return self.count in SOON or self.count % ROUNDS == 0

    def fit(self, loads: Callable[[Clients], tuple[Floats, Floats]]) -> Floats:
        """Return `a`, `b` and the slowness of each seat `(2 + seats,)`; zeros while nothing is known.

        `loads` are each seat's number of clients of a cohort and their work, as they were dealt.
        """
        if not self.rounds:
            return np.zeros(2 + self.seats)
        each = [(*loads(clients), seconds) for clients, seconds in self.rounds]
        clients, work, seconds = (np.stack(part) for part in zip(*each, strict=True))
        self.rounds.clear()  # from now on they are dealt in another way
        served = (clients > 0) & np.isfinite(seconds) & (seconds > 0)
        if not served.any():
            return np.zeros(2 + self.seats)
        a, b = 0.0, 1.0
        slowness: Floats = np.ones(self.seats)
        for step in range(STEPS + 1):  # the line for given ranks, and the ranks for a given line, in turn
            if step:
                a, b = _line(clients[served], work[served], (seconds / slowness)[served])
            guess = np.where(served, a * clients + b * work, 0.0).sum(0)
            spent = np.where(served, seconds, 0.0).sum(0)
            slowness = np.where(guess > 0, spent / np.where(guess > 0, guess, 1.0), np.nan)
            slowness = np.where(np.isnan(slowness), np.nanmedian(slowness), slowness)
        middle = float(np.median(slowness))
        slowness = slowness / middle
        slowness[abs(slowness - 1) < EVEN] = 1.0
        return np.array([a * middle, b * middle, *slowness])


def _line(clients: Floats, work: Floats, seconds: Floats) -> tuple[float, float]:
    """Return `a` and `b`, neither below 0, so that a * clients + b * work is nearest to seconds."""
    cc, cw, ww = clients @ clients, clients @ work, work @ work
    ct, wt = clients @ seconds, work @ seconds
    whole = cc * ww - cw * cw
    if whole > 1e-9 * cc * ww:
        a, b = (ww * ct - cw * wt) / whole, (cc * wt - cw * ct) / whole
        if a >= 0 and b >= 0:
            return float(a), float(b)
    # One of them alone: the one that leaves less.
    alone = [(float(ct / cc), 0.0) if cc else (0.0, 0.0), (0.0, float(wt / ww)) if ww else (0.0, 0.0)]
    left = [float(np.square(one * clients + other * work - seconds).sum()) for one, other in alone]
    return alone[int(np.argmin(left))]
