"""Which rows of a data set are whose, and in which file they go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Dealt:
    """Whose rows are whose: client k has `rows[offsets[k] : offsets[k + 1]]`."""

    rows: Rows
    offsets: Rows


def split(rows: Rows, sizes: Rows, fraction: float, rng: np.random.Generator) -> tuple[Dealt, Dealt]:
    """Rows `(N,)` of clients with `sizes (K,)`, client after client: what each trains on, and keeps aside.

    A client keeps `fraction` of its examples aside, drawn at random, rounded, but never its last one.  Rows stay in the
    order of their source within a client.
    """
    owner = np.repeat(np.arange(len(sizes)), sizes)
    kept = np.clip(np.rint(sizes * fraction).astype(np.int64), 0, np.maximum(sizes - 1, 0))
    drawn = np.lexsort((rng.random(len(rows)), owner))  # each client's places, shuffled
    rank = np.arange(len(rows)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    aside = np.zeros(len(rows), dtype=np.bool_)
    aside[drawn[rank < kept[owner]]] = True
    ordered = np.lexsort((rows, owner))
    rows, aside = rows[ordered], aside[ordered]
    return Dealt(rows[~aside], offsets(sizes - kept)), Dealt(rows[aside], offsets(kept))


def offsets(sizes: Rows | Sequence[int]) -> Rows:
    """Where each of consecutive ranges begins, and where the last one ends: `(K+1,)`."""
    return np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])


def cuts(bounds: Rows, files: int) -> list[int]:
    """The first client of each file, and K: files hold at least one client and about as many examples each."""
    clients = len(bounds) - 1
    wanted = bounds[-1] * np.arange(1, files) / files
    nearest = np.searchsorted((bounds[:-1] + bounds[1:]) / 2, wanted)
    found = [0, *nearest.tolist(), clients]
    for place in range(1, files):
        found[place] = min(max(found[place], found[place - 1] + 1), clients - (files - place))
    return found
