"""Counters beside the wire: a row per rank, a row per client of the cohort, each filled by one rank alone.

All other ranks add zeros, so the sum is exact and the same at any number of ranks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedmpi import hear
from fedmpi.flow import Learned

RANK = ("train", "evaluate", "asked")  # seconds, and whether it was asked to stop
CLIENT = ("examples", "steps", "loss", "reason", "at")


class Tally:
    """The tally of one crossing: `rows` `(cohort, ...)` of clients, `ranks` `(size, ...)`, views of one float64 vector.

    `counters` are the names of the stages' counters, summed over ranks; `scores` the names of clients' scores.  `whole`
    is the number of the model's counts and flags; `changes` `(2, whole)` are the sums of clients' changes to them, and
    the numbers of clients with a change.  Where it `hides`, a client's row holds the reason of a fault alone.
    """

    def __init__(
        self,
        size: int,
        clients: int,
        counters: Sequence[str],
        scores: Sequence[str],
        whole: int = 0,
        hides: bool = False,
    ) -> None:
        self.hides = hides
        self.counters, self.scores = tuple(counters), tuple(scores)
        wide, high = len(RANK) + len(self.counters), len(CLIENT) + len(self.scores)
        self.vector = torch.zeros(size * wide + clients * high + 2 * whole, dtype=torch.float64)
        numbers = self.vector.numpy()
        self.ranks: NDArray[np.float64] = numbers[: size * wide].reshape(size, wide)
        self.rows: NDArray[np.float64] = numbers[size * wide :][: clients * high].reshape(clients, high)
        self.changes: NDArray[np.float64] = numbers[len(numbers) - 2 * whole :].reshape(2, whole)

    def clients(self, learned: Learned, faults: NDArray[np.int64]) -> None:
        """Fill the rows of clients just learned; `faults` `(K, 2)`: a key of REASONS, and the value at fault."""
        rows = np.zeros((len(learned.places), len(CLIENT)))
        if not self.hides:
            rows[:, 0], rows[:, 1], rows[:, 2] = learned.examples, learned.steps, learned.loss
        rows[:, 3:] = faults
        self.rows[learned.places, : len(CLIENT)] = rows

    def changed(self, changes: Tensor, entered: NDArray[np.bool_]) -> None:
        """Add changes `(K, whole)` of the model's counts and flags by those clients that `entered` `(K,)`."""
        if changes.shape[1]:
            moved = changes.numpy()[entered]
            self.changes[0] += moved.sum(0)
            self.changes[1] += (moved != 0).sum(0)

    def score(self, place: int, row: NDArray[np.float64]) -> None:
        """Fill a client's scores `(scores,)`."""
        self.rows[place, len(CLIENT) :] = row

    def rank(self, me: int, train: float, evaluate: float, counters: Mapping[str, int]) -> None:
        """Fill a rank's row: its seconds of training and scoring, and its stages' counters."""
        self.ranks[me] = train, evaluate, hear.asked(), *(counters[name] for name in self.counters)

    # At home, once the sum is there.

    @property
    def examples(self) -> int:
        """The cohort's number of examples."""
        return int(self.rows[:, 0].sum())

    @property
    def steps(self) -> int:
        """The cohort's number of steps."""
        return int(self.rows[:, 1].sum())

    @property
    def loss(self) -> float | None:
        """The mean training loss over the examples of all clients with a step; None where there are none."""
        examples, losses = self.rows[:, 0], self.rows[:, 2]
        trained = np.isfinite(losses) & (self.rows[:, 1] > 0)
        total = examples[trained].sum()
        return float(examples[trained] @ losses[trained] / total) if total else None

    @property
    def unfit(self) -> list[tuple[int, int, int]]:
        """The clients with an update unfit for the sum: (place, reason, at), with `at` the first value at fault."""
        return [
            (int(place), int(self.rows[place, 3]), int(self.rows[place, 4]))
            for place in np.flatnonzero(self.rows[:, 3])
        ]

    @property
    def asked(self) -> bool:
        """True where some rank was asked to stop."""
        return bool(self.ranks[:, 2].any())

    @property
    def client_scores(self) -> NDArray[np.float64]:
        """The clients' scores `(cohort, scores)`."""
        return self.rows[:, len(CLIENT) :]

    @property
    def counted(self) -> dict[str, int]:
        """The stages' counters, summed over ranks."""
        return {name: int(self.ranks[:, len(RANK) + place].sum()) for place, name in enumerate(self.counters)}
