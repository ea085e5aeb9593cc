"""Counters beside the wire: a row per rank, a row per client of the cohort, each filled by one rank alone.

All others add zeros, so the sum is exact and the same at any number of ranks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from fedmpi import hear

RANK = ("train", "evaluate", "asked")  # seconds, and whether it was asked to stop
CLIENT = ("examples", "steps", "loss", "reason")


class Tally:
    """The tally of one crossing: `rows` `(cohort, ...)` of clients, `ranks` `(size, ...)`, views of one float64 vector.

    `counters` are names that stages count, summed over ranks; `scores` the names of clients' scores.
    """

    def __init__(self, size: int, clients: int, counters: Sequence[str], scores: Sequence[str]) -> None:
        self.counters, self.scores = tuple(counters), tuple(scores)
        wide, high = len(RANK) + len(self.counters), len(CLIENT) + len(self.scores)
        self.vector = torch.zeros(size * wide + clients * high, dtype=torch.float64)
        numbers = self.vector.numpy()
        self.ranks: NDArray[np.float64] = numbers[: size * wide].reshape(size, wide)
        self.rows: NDArray[np.float64] = numbers[size * wide :].reshape(clients, high)

    def client(self, place: int, examples: int, steps: int, loss: float, reason: int) -> None:
        self.rows[place, : len(CLIENT)] = examples, steps, loss, reason

    def score(self, place: int, row: NDArray[np.float64]) -> None:
        self.rows[place, len(CLIENT) :] = row

    def rank(self, me: int, train: float, evaluate: float, counters: dict[str, int]) -> None:
        self.ranks[me] = train, evaluate, hear.asked(), *(counters[name] for name in self.counters)

    # What home reads, once the sum is there.

    @property
    def examples(self) -> int:
        return int(self.rows[:, 0].sum())

    @property
    def steps(self) -> int:
        return int(self.rows[:, 1].sum())

    @property
    def loss(self) -> float | None:
        """Mean training loss over the examples of the clients that trained."""
        examples, losses = self.rows[:, 0], self.rows[:, 2]
        trained = np.isfinite(losses) & (self.rows[:, 1] > 0)
        total = examples[trained].sum()
        return float(examples[trained] @ losses[trained] / total) if total else None

    @property
    def unfit(self) -> list[tuple[int, int]]:
        """(place, reason) of the clients whose update could not enter the sum."""
        return [(int(place), int(self.rows[place, 3])) for place in np.flatnonzero(self.rows[:, 3])]

    @property
    def asked(self) -> bool:
        """Some rank was asked to stop."""
        return bool(self.ranks[:, 2].any())

    @property
    def client_scores(self) -> NDArray[np.float64]:
        """(cohort, scores)"""
        return self.rows[:, len(CLIENT) :]

    @property
    def counted(self) -> dict[str, int]:
        return {name: int(self.ranks[:, len(RANK) + place].sum()) for place, name in enumerate(self.counters)}
